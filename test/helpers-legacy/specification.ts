import { type Json, NOW, type Per, type Step } from './languages.js';

/** What a file holds: exact text, or a document as the language at hand writes it. */
export type Content = { readonly text: string } | { readonly document: Json };

export interface Case {
  /** A sentence a script author would understand. */
  readonly name: string;
  /** Files in the run directory at start. A directory exists when a file in it is given. */
  readonly given?: { readonly [path: string]: string };
  /** Hard links at start, by path. */
  readonly links?: { readonly [path: string]: string };
  /** A language for which nothing is found here does not run the case. */
  readonly script: Per<readonly (Step | string)[]>;
  /** What the calls answer, one entry a call; null shows as nothing in Bash. No entry: nothing is printed. */
  readonly answers?: Per<readonly Json[]>;
  /** Files at the end that are new or changed. All others must be as given, and no more there. */
  readonly leaves?: Per<{ readonly [path: string]: Content | RegExp }>;
  /** All of stderr. No entry: nothing. */
  readonly complains?: Per<RegExp>;
  /** Exit status when it is not 0. */
  readonly exit?: Per<number>;
}

const call = (name: string, ...args: readonly Json[]): Step => ({ call: name, with: args });
const input = () => call('input');
const event = () => call('event');
const output = (data: Json) => call('output', data);
const get = (key: string) => call('getVariable', key);
const set = (key: string, value: Json) => call('setVariable', key, value);
const setCondition = (condition: Json) => call('setCondition', condition);
const getCondition = () => call('getCondition');
const write = (path: string, text: string): Step => ({ write: path, text });
const enter = (directory: string): Step => ({ enter: directory });

const doc = (document: Json): Content => ({ document });
const text = (exact: string): Content => ({ text: exact });

/** As the runtime renders variables.json: two spaces, one member a line, no newline at the end. */
const rendered = (variables: Json) => JSON.stringify(variables, null, 2);
const variablesFile = (variables: Json) => ({ 'variables.json': rendered(variables) });
const conditionFile = (condition: boolean) => ({
  all: { 'condition.json': doc({ condition }) },
  bash: { 'condition.json': text(`{"condition": ${condition}}\n`) },
});

const cities = { city: 'Oslo', country: 'Norway', __updated__: '2001-02-03T04:05:06' };

const loading: readonly Case[] = [
  {
    name: 'input() gives what the previous event handed over, event() what is known about this one',
    given: {
      'input.json': '{"rows":[1,2],"note":"é \\"q\\" \\\\ $x"}',
      'event.json': '{"id":7,"server":null}',
    },
    script: { all: [input(), event()] },
    answers: {
      all: [
        { rows: [1, 2], note: 'é "q" \\ $x' },
        { id: 7, server: null },
      ],
    },
  },
  {
    name: 'without input.json and event.json, input() and event() give an empty object',
    script: { all: [input(), event()] },
    answers: { all: [{}, {}] },
  },
  {
    name: 'an input.json or event.json that is not JSON counts as an empty object',
    given: { 'input.json': 'not json', 'event.json': '{"id":7,' },
    script: { all: [input(), event()] },
    answers: { all: [{}, {}] },
  },
  {
    name: 'an empty input.json, or one of white space, counts as an empty object',
    given: { 'input.json': '', 'event.json': ' \n' },
    script: { all: [input(), event()] },
    answers: { all: [{}, {}] },
  },
  {
    name: 'a list as input is handed on as a list',
    given: { 'input.json': '[1,{"a":null}]' },
    script: { all: [input()] },
    answers: { all: [[1, { a: null }]] },
  },
  {
    name: 'Bash prints the input as it stands in the file, with one newline at the end',
    given: { 'input.json': '\n{\n  "price": 1.0,\n  "id": 9007199254740993\n}\n\n' },
    script: { bash: [input()] },
    answers: { bash: ['\n{\n  "price": 1.0,\n  "id": 9007199254740993\n}'] },
  },
  {
    name: 'input and event are read once: what is written there later is not seen',
    given: { 'input.json': '{"n":1}', 'event.json': '{"id":7}' },
    script: {
      all: [write('input.json', '{"n":2}'), write('event.json', '{"id":8}'), input(), event()],
    },
    answers: { all: [{ n: 1 }, { id: 7 }] },
    leaves: { all: { 'input.json': text('{"n":2}'), 'event.json': text('{"id":8}') } },
  },
  {
    name: 'loading the helper prints nothing and writes nothing',
    script: { all: [] },
  },
  {
    name: 'Node finds the helper under the global name too, and its functions work on their own',
    given: variablesFile(cities),
    script: {
      node: [
        'show(globalThis.cronium === cronium && require("./cronium.js") === cronium);',
        'const { getVariable } = cronium; show(getVariable("city"));',
        'show(Object.keys(cronium).sort());',
      ],
    },
    answers: {
      node: [
        true,
        'Oslo',
        ['event', 'getCondition', 'getVariable', 'input', 'output', 'setCondition', 'setVariable'],
      ],
    },
  },
  {
    name: 'Python finds every function in the module and on the object cronium.cronium',
    given: { ...variablesFile(cities), 'input.json': '{"n":1}' },
    script: {
      python: [
        'both = cronium.cronium',
        'show([both.input(), both.event(), both.getVariable("city")])',
        'show([both.setCondition(1), cronium.getCondition(), both.getCondition()])',
        'from cronium import getVariable, setVariable, output',
        'show([both.setVariable("a", 1), getVariable("a"), both.output(2)])',
      ],
    },
    answers: {
      python: [
        [{ n: 1 }, {}, 'Oslo'],
        [true, true, true],
        [true, 1, null],
      ],
    },
    leaves: {
      python: {
        'condition.json': doc({ condition: true }),
        'variables.json': doc({ ...cities, __updated__: NOW, a: 1 }),
        'output.json': doc(2),
      },
    },
  },
  {
    name: 'the Bash functions work under set -euo pipefail, missing files and arguments included',
    script: {
      bash: [
        'set -euo pipefail',
        'source ./cronium.sh',
        input(),
        get('city'),
        'cronium_getVariable',
        set('city', 'Oslo'),
        getCondition(),
        'cronium_setCondition',
        output('1'),
      ],
    },
    answers: { bash: [{}, true, false] },
    leaves: {
      bash: {
        'variables.json': doc({ city: 'Oslo', __updated__: NOW }),
        'condition.json': text('{"condition": false}\n'),
        'output.json': text('1\n'),
      },
    },
  },
];

const reading: readonly Case[] = [
  {
    name: 'getVariable gives the value of a variable',
    given: variablesFile({ city: 'Oslo', street: 'Karl Johans gate 1, "Slottet"? No.' }),
    script: { all: [get('city')] },
    answers: { all: ['Oslo'] },
  },
  {
    name: 'a variable that does not exist gives null, None or nothing',
    given: variablesFile(cities),
    script: { all: [get('town'), get('cit'), get('Oslo'), get('')] },
    answers: { all: [null, null, null, null] },
  },
  {
    name: 'without variables.json every variable is missing',
    script: { all: [get('city')] },
    answers: { all: [null] },
  },
  {
    name: 'a variables.json that is not JSON, or is cut off, has no variables',
    given: { 'variables.json': '{"city" "Oslo"' },
    script: { all: [get('city'), write('variables.json', ''), get('city')] },
    answers: { all: [null, null] },
    leaves: { all: { 'variables.json': text('') } },
  },
  {
    name: 'a variables.json that holds a list or a string has no variables',
    given: { 'variables.json': '[{"a":1}]' },
    script: { all: [get('length'), write('variables.json', '"city"'), get('city')] },
    answers: { all: [null, null] },
    leaves: { all: { 'variables.json': text('"city"') } },
  },
  {
    name: 'getVariable reads the file anew on every call',
    given: variablesFile({ city: 'Oslo' }),
    script: {
      all: [get('city'), write('variables.json', rendered({ city: 'Bergen' })), get('city')],
    },
    answers: { all: ['Oslo', 'Bergen'] },
    leaves: { all: { 'variables.json': text(rendered({ city: 'Bergen' })) } },
  },
  {
    name: 'Node gives null for "", 0 and false; Python keeps them; Bash prints "" and 0 but no false and no null',
    given: variablesFile({ text: '', count: 0, flag: false, nothing: null }),
    script: { all: [get('text'), get('count'), get('flag'), get('nothing')] },
    answers: {
      node: [null, null, null, null],
      python: ['', 0, false, null],
      bash: ['', 0, null, null],
    },
  },
  {
    name: 'numbers and true keep their type in Node and Python and print in Bash',
    given: variablesFile({ count: 42, price: -3.25, flag: true }),
    script: { all: [get('count'), get('price'), get('flag')] },
    answers: { all: [42, -3.25, true] },
  },
  {
    name: 'lists and objects come back as such; Bash prints them as JSON with jq and not at all without',
    given: variablesFile({ list: [1, 'two'], object: { a: 1 } }),
    script: { all: [get('list'), get('object')] },
    answers: {
      all: [[1, 'two'], { a: 1 }],
      jq: ['[\n  1,\n  "two"\n]', '{\n  "a": 1\n}'],
      plain: [null, null],
    },
  },
  {
    name: 'a key with "-", a space or a leading digit comes back empty in Bash',
    given: variablesFile({ 'api-key': 'a', 'two words': 'b', '1st': 'c', 'a.b': 'd', _x9: 'e' }),
    script: { all: [get('api-key'), get('two words'), get('1st'), get('a.b'), get('_x9')] },
    answers: { all: ['a', 'b', 'c', 'd', 'e'], bash: [null, null, null, 'd', 'e'] },
  },
  {
    name: 'a dot in a key is a dot: neither a path into an object nor any letter',
    given: variablesFile({ a: { b: 'inner' }, axb: 'wrong' }),
    script: { all: [get('a.b')] },
    answers: { all: [null] },
  },
  {
    name: 'names every object inherits are no variables',
    given: variablesFile(cities),
    script: { all: [get('toString'), get('constructor'), get('__proto__'), get('keys')] },
    answers: { all: [null, null, null, null] },
  },
  {
    name: 'a member of a nested object is not mistaken for the variable of that name',
    given: variablesFile({ home: { city: 'Bergen' }, city: 'Oslo', more: { town: 'Moss' } }),
    script: { all: [get('city')] },
    answers: { all: ['Oslo'] },
  },
  {
    name: 'text that looks like a member is not mistaken for one',
    given: variablesFile({ note: '  "city": "Bergen"', other: 'city', city: 'Oslo' }),
    script: { all: [get('city')] },
    answers: { all: ['Oslo'] },
  },
  {
    name: 'variables.json may be one line, as echo leaves it, or indented by four',
    given: { 'variables.json': '{"zip": "0150", "city": "Oslo"}\n' },
    script: {
      all: [
        get('zip'),
        get('city'),
        write('variables.json', '{"city":"Moss"}'),
        get('city'),
        write('variables.json', JSON.stringify({ a: { city: 'Voss' }, city: 'Bergen' }, null, 4)),
        get('city'),
      ],
    },
    answers: { all: ['0150', 'Oslo', 'Moss', 'Bergen'] },
    leaves: {
      all: {
        'variables.json': text(JSON.stringify({ a: { city: 'Voss' }, city: 'Bergen' }, null, 4)),
      },
    },
  },
  {
    name: 'letters of any script come back as written',
    given: variablesFile({ greeting: 'Grüße, 世界 🌍' }),
    script: { all: [get('greeting')] },
    answers: { all: ['Grüße, 世界 🌍'] },
  },
  {
    name: 'quotes, backslashes and line breaks come back decoded; Bash without jq leaves the escapes',
    given: variablesFile({ note: 'a "b" \\ c\nd', next: 'x' }),
    script: { all: [get('note')] },
    answers: { all: ['a "b" \\ c\nd'], plain: ['a \\"b\\" \\\\ c\\nd'] },
  },
  {
    name: 'a byte-order mark makes variables.json invalid',
    given: { 'variables.json': `\ufeff${rendered({ city: 'Oslo' })}` },
    script: { node: [get('city')], python: [get('city')], jq: [get('city')] },
    answers: { all: [null] },
  },
  {
    name: 'getVariable does not read the script’s standard input',
    given: { ...variablesFile(cities), lines: 'one\ntwo\n' },
    script: {
      bash: [
        'while read -r line; do cronium_getVariable "$line"; cronium_getVariable city; done < lines',
      ],
    },
    answers: { bash: ['Oslo', 'Oslo'] },
  },
];

const writing: readonly Case[] = [
  {
    name: 'setVariable answers true and adds the variable and the time',
    given: variablesFile({ city: 'Oslo' }),
    script: { node: [set('zip', '0150')], python: [set('zip', '0150')], jq: [set('zip', '0150')] },
    answers: { all: [true] },
    leaves: { all: { 'variables.json': doc({ city: 'Oslo', zip: '0150', __updated__: NOW }) } },
  },
  {
    name: 'setVariable on a variable that exists changes it in its place and renews the time',
    given: variablesFile(cities),
    script: {
      node: [set('city', 'Moss'), set('city', 'Bergen')],
      python: [set('city', 'Moss'), set('city', 'Bergen')],
      jq: [set('city', 'Moss'), set('city', 'Bergen')],
    },
    answers: { all: [true, true] },
    leaves: {
      all: { 'variables.json': doc({ city: 'Bergen', country: 'Norway', __updated__: NOW }) },
    },
  },
  {
    name: 'Bash without jq rewrites the file with that one key',
    given: variablesFile(cities),
    script: { plain: [set('zip', '0150'), get('zip'), get('city')] },
    answers: { plain: [true, '0150', null] },
    leaves: {
      plain: { 'variables.json': text(`{\n  "zip": "0150",\n  "__updated__": "${NOW}"\n}\n`) },
    },
  },
  {
    name: 'without variables.json, setVariable creates it',
    script: { all: [set('city', 'Oslo'), get('city')] },
    answers: { all: [true, 'Oslo'] },
    leaves: { all: { 'variables.json': doc({ city: 'Oslo', __updated__: NOW }) } },
  },
  {
    name: 'setVariable starts afresh when variables.json is not JSON or not an object',
    given: { 'variables.json': '{"city": "Oslo",' },
    script: {
      all: [
        set('a', 'x'),
        write('variables.json', '[1]'),
        set('b', 'y'),
        write('variables.json', ''),
        set('c', 'z'),
      ],
    },
    answers: { all: [true, true, true] },
    leaves: { all: { 'variables.json': doc({ c: 'z', __updated__: NOW }) } },
  },
  {
    name: 'Node and Python keep the type of a value, Bash always writes a string',
    given: { 'variables.json': '{}' },
    script: {
      node: [set('n', 42), set('t', true), set('z', null), set('l', [1, []]), set('o', { a: {} })],
      python: [
        set('n', 42),
        set('t', true),
        set('z', null),
        set('l', [1, []]),
        set('o', { a: {} }),
      ],
      jq: [set('n', 42), set('t', true), set('z', null), set('l', [1, []]), set('o', { a: {} })],
      plain: [set('n', 42)],
    },
    answers: { all: [true, true, true, true, true], plain: [true] },
    leaves: {
      all: {
        'variables.json': doc({
          n: 42,
          __updated__: NOW,
          t: true,
          z: null,
          l: [1, []],
          o: { a: {} },
        }),
      },
      jq: {
        'variables.json': doc({
          n: '42',
          __updated__: NOW,
          t: 'true',
          z: 'null',
          l: '[1,[]]',
          o: '{"a":{}}',
        }),
      },
      plain: { 'variables.json': doc({ n: '42', __updated__: NOW }) },
    },
  },
  {
    name: 'a value may hold any characters',
    script: {
      node: [set('v', `"q" 'a' \\ $HOME \`x\` %s -n 世 🌍 \t\n\n`), set('w', '--arg'), get('v')],
      python: [set('v', `"q" 'a' \\ $HOME \`x\` %s -n 世 🌍 \t\n\n`), set('w', '--arg'), get('v')],
      jq: [set('v', `"q" 'a' \\ $HOME \`x\` %s -n 世 🌍 \t\n\n`), set('w', '--arg'), get('v')],
    },
    answers: { all: [true, true, `"q" 'a' \\ $HOME \`x\` %s -n 世 🌍 \t\n\n`] },
    leaves: {
      all: {
        'variables.json': doc({
          v: `"q" 'a' \\ $HOME \`x\` %s -n 世 🌍 \t\n\n`,
          __updated__: NOW,
          w: '--arg',
        }),
      },
    },
  },
  {
    name: 'a quote in the value makes the file invalid JSON in Bash without jq',
    given: variablesFile(cities),
    script: { plain: [set('note', 'say "hi"')] },
    answers: { plain: [true] },
    leaves: {
      plain: {
        'variables.json': text(`{\n  "note": "say "hi"",\n  "__updated__": "${NOW}"\n}\n`),
      },
    },
  },
  {
    name: 'the other characters of a value survive in Bash without jq',
    script: { plain: [set('v', `'a' $HOME %s -n 世 🌍, x`), get('v')] },
    answers: { plain: [true, `'a' $HOME %s -n 世 🌍, x`] },
    leaves: {
      plain: { 'variables.json': doc({ v: `'a' $HOME %s -n 世 🌍, x`, __updated__: NOW }) },
    },
  },
  {
    name: 'any key can be set, also those that Bash cannot get',
    script: {
      node: [set('api-key', 'a'), set('two words', 'b'), set('1st', 'c'), set('x"y', 'd')],
      python: [set('api-key', 'a'), set('two words', 'b'), set('1st', 'c'), set('x"y', 'd')],
      jq: [set('api-key', 'a'), set('two words', 'b'), set('1st', 'c'), set('x"y', 'd')],
    },
    answers: { all: [true, true, true, true] },
    leaves: {
      all: {
        'variables.json': doc({
          'api-key': 'a',
          __updated__: NOW,
          'two words': 'b',
          '1st': 'c',
          'x"y': 'd',
        }),
      },
    },
  },
  {
    name: 'a variable named __proto__ is stored like any other',
    script: { all: [set('__proto__', 'x'), get('__proto__')] },
    answers: { all: [true, 'x'] },
    leaves: {
      all: { 'variables.json': text(`{\n  "__proto__": "x",\n  "__updated__": "${NOW}"\n}`) },
      bash: { 'variables.json': text(`{\n  "__proto__": "x",\n  "__updated__": "${NOW}"\n}\n`) },
    },
  },
  {
    name: 'a value of 256 KiB is stored and read back',
    script: {
      node: [
        'const v = "x".repeat(2 ** 18);',
        'show([cronium.setVariable("v", v), cronium.getVariable("v") === v]);',
      ],
      python: [
        'v = "x" * 2 ** 18',
        'show([cronium.setVariable("v", v), cronium.getVariable("v") == v])',
      ],
      bash: [
        'v=x; for i in {1..18}; do v+=$v; done',
        'cronium_setVariable v "$v"',
        'w=$(cronium_getVariable v); [[ $v == "$w" ]] && echo true',
      ],
    },
    answers: { all: [[true, true]], bash: [true, true] },
    leaves: { all: { 'variables.json': /^\{\n {2}"v": "x+",\n/ } },
  },
  {
    name: 'the file is written in place: a hard link still shows it, and no tail of the longer text is left',
    given: variablesFile({ city: 'Oslo', note: 'x'.repeat(500) }),
    links: { 'same.json': 'variables.json' },
    script: { all: [set('note', 'y')] },
    answers: { all: [true] },
    leaves: {
      all: {
        'variables.json': doc({ city: 'Oslo', note: 'y', __updated__: NOW }),
        'same.json': doc({ city: 'Oslo', note: 'y', __updated__: NOW }),
      },
      plain: {
        'variables.json': doc({ note: 'y', __updated__: NOW }),
        'same.json': doc({ note: 'y', __updated__: NOW }),
      },
    },
  },
  {
    name: 'Node answers false for a value without JSON form and leaves the file alone; undefined takes the key away',
    given: variablesFile(cities),
    script: {
      node: [
        'show(cronium.setVariable("big", 1n));',
        'show(cronium.setVariable("country", undefined));',
        get('country'),
      ],
    },
    answers: { node: [false, true, null] },
    complains: { node: /^Error setting variable: .*BigInt.*\n$/ },
    leaves: { node: { 'variables.json': doc({ city: 'Oslo', __updated__: NOW }) } },
  },
  {
    name: 'Python answers False for a value without JSON form, and the text before it stays in the file',
    given: variablesFile({ city: 'Oslo' }),
    script: { python: ['show(cronium.setVariable("odd", object()))', get('city')] },
    answers: { python: [false, null] },
    complains: { python: /^Error setting variable: .*not JSON serializable\n$/ },
    leaves: { python: { 'variables.json': /^(\{\n {2}"city": "Oslo",\n {2}"odd": )?$/ } },
  },
  {
    name: 'in Bash a setVariable that failed has status 1, so that || and set -e notice',
    given: { 'variables.json/keep': '' },
    script: { bash: [set('city', 'Oslo')] },
    answers: { bash: [false] },
    complains: { bash: /Error setting variable: city\n$/ },
    exit: { bash: 1 },
  },
  {
    name: 'setVariable answers false and says why when the file cannot be written',
    given: { 'variables.json/keep': '' },
    script: { all: [set('city', 'Oslo'), input()] },
    answers: { all: [false, {}] },
    complains: {
      all: /Error setting variable: /,
      bash: /variables\.json: Is a directory\nError setting variable: city\n$/,
    },
  },
];

const conditions: readonly Case[] = [
  {
    name: 'setCondition(true) writes the condition and answers it',
    script: { all: [setCondition(true)] },
    answers: { all: [true] },
    leaves: conditionFile(true),
  },
  {
    name: 'setCondition(false) writes the condition and answers it',
    script: { all: [setCondition(false)] },
    answers: { all: [false] },
    leaves: conditionFile(false),
  },
  {
    name: 'what counts as true follows the language; in Bash all but "", false and 0',
    script: {
      node: [
        ...['x', 'false', '0', 1, -1, [], {}].map(setCondition),
        ...['', 0, null].map(setCondition),
        'show(cronium.setCondition());',
        'show(cronium.setCondition(NaN));',
      ],
      python: [
        ...['x', 'false', '0', 1, -1, [0], { a: 0 }].map(setCondition),
        ...['', 0, null, [], {}].map(setCondition),
      ],
      bash: [
        ...['x', 'true', '1', 'no', 'False', '00', ' '].map(setCondition),
        ...['', 'false', '0', false, 0].map(setCondition),
      ],
    },
    answers: {
      all: [true, true, true, true, true, true, true, false, false, false, false, false],
    },
    leaves: conditionFile(false),
  },
  {
    name: 'getCondition gives null, None or nothing before setCondition, whatever condition.json says',
    given: { 'condition.json': '{"condition": true}' },
    script: { all: [getCondition()] },
    answers: { all: [null] },
  },
  {
    name: 'getCondition gives what setCondition set last in this process, not what the file says',
    script: {
      all: [
        setCondition(true),
        getCondition(),
        setCondition(0),
        write('condition.json', '{"condition": true}'),
        getCondition(),
      ],
    },
    answers: { all: [true, true, false, false] },
    leaves: { all: { 'condition.json': text('{"condition": true}') } },
  },
  {
    name: 'a condition set inside $(...) is written, but getCondition outside does not know it',
    script: { bash: ['answer=$(cronium_setCondition yes)', 'echo "$answer"', getCondition()] },
    answers: { bash: [true, null] },
    leaves: conditionFile(true),
  },
  {
    name: 'setCondition says why when the file cannot be written, and still answers the condition',
    given: { 'condition.json/keep': '' },
    script: { all: [setCondition(true), getCondition()] },
    answers: { all: [true, true] },
    complains: { all: /^Error setting condition: /, bash: /condition\.json: Is a directory\n$/ },
  },
];

const outputs: readonly Case[] = [
  {
    name: 'output writes its data with two spaces of indentation',
    script: {
      node: [output({ rows: [1, 'two'], ok: true })],
      python: [output({ rows: [1, 'two'], ok: true })],
    },
    answers: { all: [null] },
    leaves: {
      all: {
        'output.json': text('{\n  "rows": [\n    1,\n    "two"\n  ],\n  "ok": true\n}'),
      },
    },
  },
  {
    name: 'Bash writes its argument as it is, with a newline, JSON or not',
    script: { bash: [output('{"a": 1.0,  "s":"\\n%s"}')] },
    leaves: { bash: { 'output.json': text('{"a": 1.0,  "s":"\\n%s"}\n') } },
  },
  {
    name: 'cronium_output without an argument writes an empty line, also behind a pipe',
    script: { bash: ['echo \'{"a":1}\' | cronium_output'] },
    leaves: { bash: { 'output.json': text('\n') } },
  },
  {
    name: 'the last output wins, whole',
    script: { all: [output({ long: 'x'.repeat(100) }), output([])] },
    answers: { all: [null, null] },
    leaves: { all: { 'output.json': doc([]) } },
  },
  {
    name: 'null, false, 0 and "" are outputs too',
    script: {
      node: [
        output(null),
        'console.log(require("fs").readFileSync("output.json", "utf8"));',
        output(''),
      ],
      python: [output(null), 'print(open("output.json").read())', output('')],
      bash: [output(null), 'cat output.json', output('""')],
    },
    answers: { all: [null, null, null], bash: ['null'] },
    leaves: { all: { 'output.json': doc('') } },
  },
  {
    name: 'Python writes other letters as escapes, Node as they are',
    script: { node: [output('é 🌍')], python: [output('é 🌍')] },
    answers: { all: [null] },
    leaves: {
      node: { 'output.json': text('"é 🌍"') },
      python: { 'output.json': text('"\\u00e9 \\ud83c\\udf0d"') },
    },
  },
  {
    name: 'not-a-number is null in Node and NaN, which is no JSON, in Python',
    script: { node: ['cronium.output([NaN]);'], python: ['cronium.output([float("nan")])'] },
    leaves: {
      node: { 'output.json': doc([null]) },
      python: { 'output.json': text('[\n  NaN\n]') },
    },
  },
  {
    name: 'a circular output is reported in Node, no file appears, and the script goes on',
    script: { node: ['const a = {}; a.a = a; cronium.output(a);', 'show("on");'] },
    answers: { node: ['on'] },
    complains: { node: /^Error writing output: Converting circular structure to JSON\n/ },
  },
  {
    name: 'a BigInt output is reported in Node and no file appears',
    script: { node: ['cronium.output({ n: 1n });'] },
    complains: { node: /^Error writing output: .*BigInt.*\n$/ },
  },
  {
    name: 'an undefined output is reported in Node, and an earlier output stays',
    script: { node: ['cronium.output(undefined);', output(1), 'cronium.output(() => 1);'] },
    answers: { node: [null] },
    complains: {
      node: /^Error writing output: .*undefined.*\nError writing output: .*function.*\n$/,
    },
    leaves: { node: { 'output.json': doc(1) } },
  },
  {
    name: 'an output Python cannot serialise is reported, its first part stays in the file, and the script goes on',
    script: { python: ['cronium.output({"a": 1, "b": {2}})', getCondition()] },
    answers: { python: [null] },
    complains: { python: /^Error writing output: .*not JSON serializable\n$/ },
    leaves: { python: { 'output.json': /^(\{\n {2}"a": 1,\n {2}"b": )?$/ } },
  },
  {
    name: 'a circular output is reported in Python',
    script: { python: ['a = []; a.append(a); cronium.output(a)'] },
    complains: { python: /^Error writing output: Circular reference detected\n$/ },
    leaves: { python: { 'output.json': /^(\[\n {2})?$/ } },
  },
  {
    name: 'output says why when the file cannot be written, and the script goes on',
    given: { 'output.json/keep': '' },
    script: { all: [output(1), input()] },
    answers: { all: [null, {}] },
    complains: {
      all: /^Error writing output: .*directory.*\n$/,
      bash: /output\.json: Is a directory\n$/,
    },
  },
];

const elsewhere: readonly Case[] = [
  {
    name: 'after a change of directory variables are missing, input and event are not',
    given: {
      ...variablesFile(cities),
      'input.json': '{"n":1}',
      'event.json': '{"id":7}',
      'sub/x': '',
    },
    script: { all: [enter('sub'), get('city'), input(), event()] },
    answers: { all: [null, { n: 1 }, { id: 7 }] },
  },
  {
    name: 'after a change of directory what is written goes to a stray file there',
    given: { ...variablesFile(cities), 'sub/x': '' },
    script: {
      all: [enter('sub'), set('city', 'Bergen'), get('city'), setCondition(false), output(5)],
    },
    answers: { all: [true, 'Bergen', false, null] },
    leaves: {
      all: {
        'sub/variables.json': doc({ city: 'Bergen', __updated__: NOW }),
        'sub/condition.json': doc({ condition: false }),
        'sub/output.json': doc(5),
      },
      bash: {
        'sub/variables.json': doc({ city: 'Bergen', __updated__: NOW }),
        'sub/condition.json': text('{"condition": false}\n'),
        'sub/output.json': doc(5),
      },
    },
  },
];

export const SPECIFICATION = { loading, reading, writing, conditions, outputs, elsewhere } as const;

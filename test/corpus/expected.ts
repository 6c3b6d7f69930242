import type { EventDocument } from '#bridge/wire/protocol.js';
import type { WarningKind } from './reference.js';

/** What a script must amount to. What is left out is the plain case: see each member. */
export interface Outcome {
  /** 0. */
  readonly exitCode?: number;
  /** Whether the exit code is 0. */
  readonly succeeded?: boolean;
  /** Nothing. */
  readonly stdout?: string;
  /** Nothing. A pattern where it holds a path, a line number or an interpreter's words. */
  readonly stderr?: string | RegExp;
  /** JSON source text; none. */
  readonly output?: string | null;
  /** None. */
  readonly condition?: boolean | null;
  /** What is stored afterwards, in document order: key and JSON source text. As given. */
  readonly variables?: Readonly<Record<string, string>>;
  /** None. */
  readonly warnings?: readonly WarningKind[];
}

/** A script's surroundings and what it makes of them, by the contract. */
export interface Expectation extends Outcome {
  /** `{}`. */
  readonly input?: string;
  /** Members of event.json that differ from the test's usual one. */
  readonly event?: Partial<EventDocument>;
  readonly env?: Readonly<Record<string, string>>;
  /** Variables that are stored before: key and JSON source text. None. */
  readonly given?: Readonly<Record<string, string>>;
  /** `--compat exact`. */
  readonly exact?: true;
  /** `live`. */
  readonly commit?: 'on-success';
  /** Where the contract departs from legacy on purpose: why, and what legacy did. */
  readonly differs?: { readonly because: string; readonly legacy: Outcome };
}

const UNTOUCHED = 'untouched members keep their source text, whatever a JSON library makes of it';
const LIVE = 'what a close committed is durable, whatever the file becomes later';
const NO_PRELUDE = 'scripts that the prelude broke run';
const LINE_BUFFERED = 'python prints by line, so that nobody waits for text that is in a buffer';

const lines = (...of: readonly string[]): string => of.map((line) => `${line}\n`).join('');
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export const EXPECTED: Readonly<Record<string, Expectation>> = {
  '001-helper-counter.sh': {
    input: '{"name": "Ada"}',
    given: { count: '"41"' },
    stdout: lines('true', 'true', 'true'),
    output: '{"hello": "Ada", "event": 7}',
    condition: true,
    variables: { count: '"42"' },
  },
  '002-jq-and-mv.sh': {
    given: { count: '1', keep: '{"x":1}' },
    stdout: lines('{"count":2,"keep":{"x":1},"last":"x"}'),
    variables: { count: '2', keep: '{"x":1}', last: '"x"' },
    differs: {
      because: UNTOUCHED,
      legacy: { variables: { count: '2', keep: '{\n    "x": 1\n  }', last: '"x"' } },
    },
  },
  '003-echo-redirect.sh': { stdout: lines('  {"n": 1.0}  '), output: '{"n": 1.0}' },
  '004-append.sh': { stdout: lines('5'), output: '[\n1,\n2,\n3,\n4]' },
  '005-heredoc.sh': { output: '{"hello": "world", "sum": 3}', condition: true },
  '006-sed-in-place.sh': {
    given: { word: '"old"', n: '1', z: '1' },
    stdout: lines('  "word": "new",'),
    variables: { word: '"new"', n: '2', z: '1' },
  },
  '007-cp.sh': {
    given: { a: '1' },
    stdout: lines('same', 'backup'),
    output: '{"copied": true}',
    variables: { a: '2' },
  },
  '008-touch-chmod-stat.sh': {
    given: { a: '1' },
    stdout: lines('0 regular empty file', '600 12', '12', '981173106'),
    warnings: ['output'],
  },
  '009-rm-and-recreate.sh': {
    given: { a: '1', b: '2' },
    stdout: lines('gone', '{"fresh": true}'),
    variables: { fresh: 'true' },
  },
  '010-mv-away-and-back.sh': {
    given: { city: '"Oslo"' },
    stdout: lines('away', '[]', 'Bergen'),
    variables: { city: '"Bergen"' },
  },
  '011-rm-at-the-end.sh': { given: { a: '1' }, stdout: lines('event.json', 'input.json') },
  '012-symbolic-links.sh': {
    stdout: lines('result.txt', '{"condition": 1}'),
    output: '{"through": "a link"}',
    condition: true,
  },
  '013-hard-link.sh': {
    given: { a: '1' },
    stdout: lines('2', '{"a":1,"b":2}'),
    variables: { a: '1', b: '2' },
  },
  '014-lock-by-link.sh': { output: '40' },
  '015-helper-without-jq.sh': {
    given: { city: '"Rome"', count: '5', keep: 'true' },
    stdout: lines('Rome', '5', 'true', 'Oslo'),
    variables: { city: '"Oslo"', count: '5', keep: 'true' },
    differs: {
      because: 'the write of the helper without jq is an upsert of its key',
      legacy: { variables: { city: '"Oslo"' } },
    },
  },
  '016-grep-and-sed-by-line.sh': {
    given: { city: '"Oslo"', count: '12' },
    stdout: lines('Oslo', '12', '2'),
  },
  '017-tests-and-missing-files.sh': {
    stdout: lines('input', 'event', 'variables', 'no output', 'no condition', 'cat: 1', 'fine'),
  },
  '018-exec-descriptors.sh': {
    given: { a: '1', b: '2' },
    stdout: lines('<{>', '<"a": 1,>', '<"b": 2>'),
    output: '{"through": 3}',
    variables: { a: '9', b: '2' },
  },
  '019-here-strings.sh': {
    given: { words: '"alpha beta"' },
    stdout: lines('3 lines', 'alpha', '2'),
    output: '"alpha beta"',
  },
  '020-mktemp.sh': {
    given: { a: '1', b: '2' },
    stdout: lines('in TMPDIR', '600'),
    output: '{"from": "mktemp"}',
    variables: { b: '2' },
  },
  '021-tar-and-gzip.sh': {
    given: { a: '7' },
    stdout: lines('67d4ff71d43921d5', '{', '  "a": 7', '}', '1000'),
    output: '7',
  },
  '022-find.sh': {
    stdout: lines(
      'a/1',
      'a/b/2',
      'a/b/c/3 x',
      'a/b/c/3 x',
      'event.json f',
      'input.json f',
      'variables.json f',
      'a/b/c',
    ),
  },
  '023-awk-report.sh': {
    input: '{"rows": [["b", 1], ["a", 2], ["b", 3]]}',
    stdout: lines('3 rows', '{"a": 2, "b": 4}'),
    output: '{"a": 2, "b": 4}',
  },
  '024-awk-in-place.sh': {
    given: { city: '"Oslo"', count: '5' },
    stdout: lines('15'),
    variables: { city: '"Oslo"', count: '15' },
  },
  '025-trap-exit.sh': { exitCode: 3, output: '{"code": 3, "steps": 2}' },
  '026-late-background-child.sh': {
    stdout: lines('parent', 'late', 'true'),
    output: '{"by": "child"}',
    variables: { late: '"yes"' },
  },
  '027-set-e.sh': { exitCode: 1, stdout: lines('true'), variables: { before: '"1"' } },
  '028-exit-half-way.sh': { exitCode: 42, warnings: ['output', 'condition'] },
  '029-kill-self.sh': {
    exitCode: 143,
    stdout: lines('true', 'trapped'),
    variables: { last: '"words"' },
  },
  '030-run-what-was-written.sh': {
    given: { a: '1' },
    stdout: lines('not yet: 126', 'tool x in work', 'tool y in work', '3', 'tool last in work'),
  },
  '031-cd-then-helpers.sh': {
    input: '{"n": 1}',
    given: { city: '"Oslo"' },
    stdout: lines('[]', 'true', '{"n": 1}', 'output.json', 'variables.json', 'Oslo'),
  },
  '032-many-lines-in-a-value.sh': {
    stdout: lines('true', 'same', '3'),
    variables: {
      text: String.raw`"first\nsecond\t\"quoted\" \\ back/slash\nüñí 中 😀"`,
    },
  },
  '033-numbers-through-jq.sh': {
    given: { big: '9223372036854775807', one: '1.0', huge: '1e400', tiny: '1e-400', n: '1' },
    stdout: lines(
      '{"big":9223372036854776000,"one":1,"huge":1.7976931348623157e+308,"tiny":0,"n":2}',
    ),
    variables: { big: '9223372036854775807', one: '1.0', huge: '1e400', tiny: '1e-400', n: '2' },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: {
          big: '9223372036854776000',
          one: '1',
          huge: '1.7976931348623157e+308',
          tiny: '0',
          n: '2',
        },
      },
    },
  },
  '034-duplicate-keys.sh': {
    output: '{"x": 1, "x": 2}',
    condition: false,
    variables: { a: '2', b: '{"c": 1, "c": 2}' },
  },
  '035-variables-that-are-no-object.sh': {
    given: { a: '1' },
    stdout: lines('[1, 2]', '[]'),
    warnings: ['variables'],
  },
  '036-empty-variables.sh': {
    given: { a: '1' },
    stdout: lines('0', 'empty'),
    warnings: ['variables'],
  },
  '037-byte-order-mark.sh': {
    given: { a: '5' },
    stdout: lines(' ef bb bf'),
    warnings: ['variables', 'output', 'condition'],
  },
  '038-truncated-json.sh': {
    given: { city: '"Oslo"', count: '5' },
    stdout: '{\n  "city": ',
    warnings: ['variables'],
  },
  '039-empty-object.sh': { given: { a: '1', b: '2' }, variables: {} },
  '040-leave-out.sh': {
    given: { a: '1', b: '2', c: '{"x":1,"y":2}' },
    variables: { a: '1', c: '{\n    "y": 2\n  }' },
  },
  '041-condition-string.sh': { condition: true },
  '042-condition-bare.sh': { warnings: ['condition'] },
  '043-condition-without-member.sh': { warnings: ['condition'] },
  '044-output-null.sh': { stdout: lines('false'), output: 'null', condition: false },
  '045-output-empty-string.sh': { output: '""' },
  '046-subshells-and-pipes.sh': {
    stdout: lines('0 10', 'true []', 'shout', '0 0 0'),
    stderr: lines('SHOUT'),
    condition: true,
    variables: { inner: '"5"' },
  },
  '047-stderr.sh': { stdout: lines('out'), stderr: lines('oops'), output: '{"fine": true}' },
  '048-exact-stderr.sh': {
    exact: true,
    succeeded: false,
    given: { a: '"1"' },
    stdout: lines('true'),
    stderr: lines('oops'),
    variables: { a: '"2"' },
  },
  '049-flock.sh': { stdout: lines('30'), variables: { sum: '"30"' } },
  '050-fifo.sh': { stdout: lines('fifo', 'a fifo'), output: '{"through":\n"a fifo"}' },
  '051-parallel-helpers.sh': {
    given: Object.fromEntries(upTo(8).map((n) => [`k${n + 1}`, '"-"'])),
    stdout: lines(
      ...upTo(8).map(() => 'true'),
      '{"k1":"1","k2":"2","k3":"3","k4":"4","k5":"5","k6":"6","k7":"7","k8":"8"}',
    ),
    variables: Object.fromEntries(upTo(8).map((n) => [`k${n + 1}`, `"${n + 1}"`])),
  },
  '052-unicode-text.sh': {
    stdout: lines('true'),
    output: String.raw`{"plain": "é中😀", "escaped": "\u00e9\u4e2d\ud83d\ude00", "slash": "a\/b", "clé à 😀": 1}`,
    variables: {
      plain: '"é中😀"',
      escaped: String.raw`"\u00e9\u4e2d\ud83d\ude00"`,
      slash: String.raw`"a\/b"`,
      'clé à 😀': '1',
    },
  },
  '053-on-success-fails.sh': {
    commit: 'on-success',
    given: { a: '"1"' },
    exitCode: 3,
    stdout: lines('true', 'true', '2'),
    output: '"kept"',
  },
  '054-on-success-succeeds.sh': {
    commit: 'on-success',
    given: { a: '"1"' },
    stdout: lines('true', 'false'),
    condition: false,
    variables: { a: '"2"', b: '[1]' },
  },
  '055-large-values.sh': {
    stdout: lines('true', '300001', '2000002'),
    output: `"${'y'.repeat(2_000_000)}"`,
    variables: { big: `"${'x'.repeat(300_000)}"` },
  },
  '056-truncate-and-dd.sh': { stdout: ' 00 00 00\n{"a": 7}', output: '{"a": 7}' },
  '057-mv-without-replacing.sh': {
    stdout: lines('other.json', 'noclobber', '{"first": 1}', '640', '2'),
    output: '{"second": 2}',
    warnings: ['condition'],
  },
  '058-exact-rendering.sh': {
    given: { s: '"x"', n: '1.0' },
    stdout: lines(
      String.raw`0000000   {  \n           "   s   "   :       "   x   "   ,  \n        `,
      '0000032',
      '}',
      '{',
      '  "s": "x",',
      '  "n": 1.0',
    ),
  },
  '059-odd-keys.sh': {
    given: {
      'a-b': '"1"',
      'a b': '"2"',
      '7up': '"3"',
      none: 'null',
      no: 'false',
      yes: 'true',
      num: '4',
    },
    stdout: lines(
      'a-b=[]',
      'a b=[]',
      '7up=[]',
      'none=[]',
      'no=[]',
      'yes=[true]',
      'num=[4]',
      'true',
    ),
    variables: {
      'a-b': '"changed"',
      'a b': '"2"',
      '7up': '"3"',
      none: 'null',
      no: 'false',
      yes: 'true',
      num: '4',
    },
  },
  '060-private-input.sh': {
    input: '{"n": 1}',
    stdout: lines('{"n": 1}', '{"mine": 1}', 'daily', '{"n": 1}', '["mine"]'),
  },
  '061-event-keys.sh': {
    event: {
      name: 'wéekly "x"',
      description: 'two\nlines',
      server: { id: 3, name: 'web', address: '10.0.0.1' },
      lastRunAt: '2024-03-04T05:06:07.000Z',
    },
    stdout: lines(
      String.raw`{"id":7,"name":"wéekly \"x\"","description":"two\nlines","type":"SCRIPT","runLocation":"LOCAL","createdAt":"2024-01-02T03:04:05.000Z","updatedAt":"2024-02-03T04:05:06.000Z","userId":"ada","server":{"id":3,"name":"web","address":"10.0.0.1"},"successCount":3,"failureCount":1,"lastRunAt":"2024-03-04T05:06:07.000Z"}`,
      'id,name,description,type,runLocation,createdAt,updatedAt,userId,server,successCount,failureCount,lastRunAt',
      '17',
    ),
  },
  '062-directory-and-environment.sh': {
    env: { GREETING: 'hi there' },
    stdout: lines(
      '.tmp',
      'cronium.sh',
      'event.json',
      'input.json',
      'script_N.sh',
      'variables.json',
      '755 regular file',
      '644 regular file',
      '/cronium/work',
      '0',
      'GREETING=hi there',
      'HOME=/tmp',
      'LANG=C.UTF-8',
      'PATH=/usr/local/bin:/usr/bin:/bin',
      'TMPDIR=/cronium/work/.tmp',
      'TZ=UTC',
    ),
  },
  '063-tee-sort-split.sh': {
    stdout: lines('a', 'b', 'c', '["a","b","c"]'),
    output: '["a","b","c"]',
  },
  '064-helper-that-cannot-write.sh': {
    given: { b: '"x"' },
    stdout: lines('false', 'status 1', 'true'),
    variables: { b: '"x"', a: '"1"' },
  },
  '065-empty-values.sh': {
    stdout: lines('true', '["s","l","o","n","b","z","s2"]'),
    variables: { s: '""', l: '[ ]', o: '{ }', n: 'null', b: 'false', z: '0', s2: '""' },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: { s: '""', l: '[]', o: '{}', n: 'null', b: 'false', z: '0', s2: '""' },
      },
    },
  },
  '066-exit-by-exec.sh': {
    exitCode: 9,
    stdout: lines('true', 'awk'),
    output: '{"by": "awk"}',
    variables: { a: '"5"' },
  },
  '067-helper-types.py': {
    input: '{"rows": [1.0, "é"]}',
    stdout: lines(
      String.raw`["\u00e9 \"q\" \\", 41, 2.0, true, null, [1, "two", {}], "", null]`,
      'False False',
    ),
    output: '{\n  "rows": [\n    1.0,\n    "\\u00e9"\n  ]\n}',
    condition: false,
    variables: {
      text: String.raw`"\u00e9 \"q\" \\"`,
      number: '41',
      float: '2.0',
      yes: 'true',
      none: 'null',
      list: '[\n    1,\n    "two",\n    {}\n  ]',
      empty: '""',
    },
  },
  '068-json-load-and-dump.py': {
    given: { z: '1', a: '"x"', m: '1.0' },
    stdout: lines('{"a": "x", "added": {"n": 1.5}, "m": 1.0, "z": 1}'),
    variables: { z: '1', a: '"x"', m: '1.0', added: '{"n": 1.5}' },
    differs: {
      because: 'variables stand in the order in which they were created',
      legacy: { variables: { a: '"x"', added: '{"n": 1.5}', m: '1.0', z: '1' } },
    },
  },
  '069-tempfile-and-replace.py': {
    given: { n: '1' },
    stdout: lines('True', '0o100600 []'),
    variables: { n: '2' },
  },
  '070-read-plus.py': {
    given: { a: '1', long: '"xxxxxxxxxx"', b: '[1]' },
    stdout: lines('{"a": 9, "b": [1]}'),
    variables: { a: '9', b: '[1]' },
  },
  '071-append-descriptors.py': {
    stdout: lines('File exists', '13 b\'{"a": [7, 2]}\''),
    output: '{"a": [7, 2]}',
    condition: true,
  },
  '072-pathlib.py': {
    given: { a: '1.0' },
    stdout: lines(
      "['event.json', 'input.json', 'variables.json']",
      '0 True False',
      '/cronium/work/output.json',
    ),
    output: '["moved"]',
    variables: { a: '1.0', b: '2' },
  },
  '073-mmap.py': {
    given: { city: '"Oslo"' },
    stdout: lines('20 13', '{', '  "city": "Rome"', '}'),
    variables: { city: '"Rome"' },
  },
  '074-sqlite.py': {
    stdout: lines('rolled back'),
    output: '{"total": 19900, "files": ["data.db"]}',
  },
  '075-import-what-was-written.py': {
    stdout: lines('42 /cronium/work/pack/inner.py', "['written.cpython-311.pyc'] 2", 'True True'),
  },
  '076-subprocess.py': {
    given: { city: '"Oslo"' },
    stdout: lines('Oslo', "5 b'LOUD\\n'", 'Turin'),
    output: '{"city":"Turin"}',
    variables: { city: '"Turin"' },
  },
  '077-multiprocessing.py': {
    given: { n: '0' },
    stdout: lines('[0, 0, 0]'),
    output:
      '{\n  "squares": [\n    0,\n    1,\n    4,\n    9,\n    16,\n    25\n  ],\n  "n": 15\n}',
    variables: { n: '15' },
  },
  '078-threads.py': {
    given: Object.fromEntries(upTo(8).map((n) => [`k${n}`, 'null'])),
    stdout: lines('[0, 1, 2, 3, 4, 5, 6, 7]'),
    variables: Object.fromEntries(upTo(8).map((n) => [`k${n}`, `${n}`])),
  },
  '079-flock-and-fork.py': {
    given: { n: '0' },
    stdout: lines('[0, 0, 0]', '[0, 0, 0]', 'Resource temporarily unavailable'),
    variables: { n: '30' },
  },
  '080-link-lock.py': {
    stdout: lines('taken 2 True', "True out/result 10 ['result']"),
    output: '{"by": "link"}',
  },
  '081-unix-socket.py': { given: { city: '"Oslo"' }, stdout: lines('True'), output: '"Oslo"' },
  '082-fifo.py': { stdout: lines('0 0'), output: '[\n  1,\n  2,\n  3\n]' },
  '083-nan.py': {
    given: { a: '1' },
    stdout: lines('{', '  "x": Infinity', '}'),
    variables: { a: '1', good: '1.5' },
    warnings: ['variables', 'output'],
    differs: { because: LIVE, legacy: { variables: { a: '1' } } },
  },
  '084-unserialisable.py': {
    stdout: lines(String.raw`'{\n  "a": 1,\n  "b": '`),
    stderr: lines('Error writing output: Object of type set is not JSON serializable'),
    warnings: ['output'],
  },
  '085-exception.py': {
    exitCode: 1,
    stdout: lines('working'),
    stderr: /script_\d+\.py", line 6, in <module>\n[^]*\nValueError: here\n$/,
    output: '{"partial": true}',
    variables: { step: '"one"' },
    differs: {
      because: 'line numbers are the author’s',
      legacy: { stderr: /script_\d+\.py", line 8, in <module>\n[^]*\nValueError: here\n$/ },
    },
  },
  '086-sys-exit.py': { exitCode: 7, stdout: lines('finally', 'bye'), output: '"at exit"' },
  '087-sys-exit-text.py': { exitCode: 1, stderr: lines('no rows today'), condition: true },
  '088-chdir.py': {
    given: { city: '"Oslo"' },
    stdout: lines("None True ['variables.json']"),
    variables: { city: '"Oslo"', found: 'true' },
  },
  '089-killed-with-text-in-the-buffer.py': {
    exitCode: 137,
    stdout: lines('printed'),
    variables: { stored: 'true' },
    differs: { because: LINE_BUFFERED, legacy: { stdout: '' } },
  },
  '090-big-integers.py': {
    given: { big: '9223372036854775807', huge: '1e400', n: '0' },
    stdout: lines('True inf'),
    warnings: ['variables'],
  },
  '091-exact-decimals.py': {
    given: {
      big: '18446744073709551615',
      dec: '1.10',
      exp: '1E+2',
      pi: '3.141592653589793238462643',
    },
    output: '{"big": 18446744073709551616, "tiny": 1e-320, "e": 1e+22}',
    variables: {
      big: '18446744073709551616',
      dec: '1.10',
      exp: '1E+2',
      pi: '3.141592653589793238462643',
      new: '1180591620717411303424',
    },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: {
          big: '18446744073709551616',
          dec: '1.1',
          exp: '100.0',
          pi: '3.141592653589793',
          new: '1180591620717411303424',
        },
      },
    },
  },
  '092-shutil-and-archives.py': {
    input: '{"zip": 1}',
    given: { a: '1' },
    stdout: lines(
      `b'{"zip": 1}'`,
      String.raw`b'{\n  "a": 1\n}'`,
      "True ['t.tar.gz', 'variables.json', 'z.zip']",
    ),
    output: '["gz"]',
  },
  '093-rename-away-and-back.py': {
    given: { a: '1' },
    stdout: lines('False None', 'True 1'),
    condition: true,
  },
  '094-flush-and-fsync.py': {
    given: { a: '0', b: '5' },
    stdout: lines("''", `'{"a": '`, `'{"a": 1}'`),
    variables: { a: '2' },
  },
  '095-invalid-utf8.py': {
    variables: { latin: '"caf\ufffd"', cut: '"\ufffd"' },
    warnings: ['output'],
  },
  '096-fork-without-flush.py': {
    stdout: lines('once', 'child', 'parent'),
    differs: {
      because: LINE_BUFFERED,
      legacy: { stdout: lines('once', 'child', 'once', 'parent') },
    },
  },
  '097-signals.py': { exitCode: 143, output: '{\n  "rang": 14\n}' },
  '098-shelve-and-logging.py': {
    stdout: lines('INFO 19 bytes'),
    output: String.raw`[{"a": "1", "b": "x, \"y\""}]`,
  },
  '099-future-import.py': {
    output: '"ran"',
    differs: {
      because: NO_PRELUDE,
      legacy: { exitCode: 1, stderr: /SyntaxError: from __future__/, output: null },
    },
  },
  '100-deep-nesting.py': {
    given: { keep: '{"x": 1.0}' },
    stdout: lines('3906'),
    variables: { keep: '{"x": 1.0}', deep: `${'['.repeat(400)}${']'.repeat(400)}` },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: { keep: '{"x":1.0}', deep: `${'['.repeat(400)}${']'.repeat(400)}` },
      },
    },
  },
  '101-deleted-while-open.py': {
    given: { old: '1' },
    stdout: lines('{', '  "old": 1', '}', '14 0'),
    variables: { new: '1' },
  },
  '102-write-and-read.js': {
    given: { count: '1', nested: '{"list": []}' },
    stdout: lines(
      'false 35 {"count":2,"nested":{"list":["x"]}}',
      '/cronium/work /cronium/work/script_N.js 2 true',
    ),
    output: '{\n\t"done": true\n}',
    variables: { count: '2', nested: '{"list":["x"]}' },
  },
  '103-promises.js': {
    input: '{"b": 2}',
    given: { a: '1.0' },
    stdout: lines('5 17', 'done'),
    output: '{"b":2,"a":1}',
    condition: true,
    variables: { a: '1.0', b: '2' },
    differs: { because: UNTOUCHED, legacy: { variables: { a: '1', b: '2' } } },
  },
  '104-streams.js': {
    given: { s: '"x"' },
    stdout: lines('> {', '>   "s": "x"', '> }', '2000'),
    output: `[${upTo(2000).join(',')}]`,
  },
  '105-helper-types.js': {
    stdout: lines(
      String.raw`text true "é \"q\"\n"`,
      'zero true null',
      'half true 0.5',
      'no true null',
      'empty true null',
      'none true null',
      'list true [1,[2]]',
      'map true {"a":{"b":1}}',
      'null false false true',
    ),
    output: '"nightly"',
    condition: false,
    variables: {
      text: String.raw`"é \"q\"\n"`,
      zero: '0',
      half: '0.5',
      no: 'false',
      empty: '""',
      none: 'null',
      list: '[\n    1,\n    [\n      2\n    ]\n  ]',
      map: '{\n    "a": {\n      "b": 1\n    }\n  }',
    },
  },
  '106-rename.js': {
    given: { a: '1' },
    stdout: lines('"here" 0'),
    output: '"here"',
    variables: { a: '1', b: '2' },
  },
  '107-descriptors.js': { stdout: lines('EEXIST', '9 {"a": 42}'), output: '[0]' },
  '108-copies.js': {
    given: { a: '1' },
    stdout: lines('EEXIST copyfile', 'true'),
    output: '{\n  "a": 1\n}',
    variables: { c: '3' },
  },
  '109-process-exit.js': {
    exitCode: 6,
    stdout: lines('leaving'),
    output: '{"code":6}',
    variables: { reached: '1' },
  },
  '110-uncaught.js': {
    exitCode: 1,
    stderr: /Error: nobody listens/,
    variables: { before: 'true' },
    warnings: ['output'],
  },
  '111-no-json-form.js': {
    given: { a: '1' },
    stdout: lines('false false 1'),
    stderr:
      /^Error writing output: .*circular[^]*\nError writing output: .*BigInt.*\nError writing output: .*undefined.*\nError setting variable: .*BigInt.*\n$/,
  },
  '112-child-processes.js': {
    given: { n: '1' },
    stdout: lines('2', '5', '0'),
    output: '[5]',
    condition: true,
    variables: { n: '5' },
  },
  '113-workers.js': {
    output:
      '{\n  "codes": [\n    0,\n    0,\n    0\n  ],\n  "parts": [\n    0,\n    10,\n    20\n  ]\n}',
  },
  '114-unix-socket-server.js': {
    given: { a: '1.0' },
    stdout: lines('200 {', '  "a": 1.0', '}', 'false'),
    output: '{\n  "a": 1.0\n}',
  },
  '115-numbers-through-doubles.js': {
    given: { big: '9223372036854775807', one: '1.0', e: '1E2', huge: '1e400', small: '0.10' },
    stdout: lines(
      '9223372036854776000 null',
      '{',
      '  "big": 9223372036854776000,',
      '  "one": 1,',
      '  "e": 100,',
      '  "huge": null,',
      '  "small": 0.1,',
      '  "n": 1,',
      '  time',
      '}',
    ),
    variables: {
      big: '9223372036854775807',
      one: '1.0',
      e: '1E2',
      huge: '1e400',
      small: '0.10',
      n: '1',
    },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: {
          big: '9223372036854776000',
          one: '1',
          e: '100',
          huge: 'null',
          small: '0.1',
          n: '1',
        },
      },
    },
  },
  '116-numbers-that-change.js': {
    given: { big: '9007199254740993', list: '[1.0, 2.0]', float: '1.5', keep: '1.0' },
    variables: { big: '9007199254740994', list: '[0,2]', float: '1e+21', keep: '1.0' },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: { big: '9007199254740994', list: '[0,2]', float: '1e+21', keep: '1' },
      },
    },
  },
  '117-proto-keys.js': {
    given: { ['__proto__']: '{"a": 1}', constructor: '"c"', toString: '"t"', length: '0' },
    stdout: lines('__proto__,constructor,toString,length,n t null'),
    output: '{\n  "__proto__": {\n    "x": 1\n  }\n}',
    variables: {
      ['__proto__']: '{"a": 1}',
      constructor: '"c"',
      toString: '"t"',
      length: '0',
      n: '1',
      hasOwnProperty: '"taken"',
    },
    differs: {
      because: UNTOUCHED,
      legacy: {
        variables: {
          ['__proto__']: '{\n    "a": 1\n  }',
          constructor: '"c"',
          toString: '"t"',
          length: '0',
          n: '1',
          hasOwnProperty: '"taken"',
        },
      },
    },
  },
  '118-undefined-deletes.js': {
    given: { old: '1', keep: '2' },
    stdout: lines('true null'),
    variables: { keep: '2' },
  },
  '119-eight-at-once.js': {
    stdout: lines('28'),
    variables: {
      k0: '0',
      sum: '28',
      k1: '1',
      k2: '2',
      k3: '3',
      k4: '4',
      k5: '5',
      k6: '6',
      k7: '7',
    },
  },
  '120-links.js': {
    given: { a: '1' },
    stdout: lines('true /cronium/work/scratch 2'),
    output: '{"condition": false, "n": 1}',
    condition: false,
  },
  '121-module-syntax.js': {
    given: { a: '1' },
    output: '1',
    differs: {
      because: NO_PRELUDE,
      legacy: { exitCode: 1, stderr: /require is not defined/, output: null },
    },
  },
  '122-shebang.js': {
    output: '"ran"',
    differs: {
      because: NO_PRELUDE,
      legacy: { exitCode: 1, stderr: /SyntaxError/, output: null },
    },
  },
  '123-chdir.js': {
    input: '{"n":1}',
    given: { city: '"Oslo"' },
    stdout: lines("null true Lost [ 'variables.json' ]", 'Oslo {"n":1}'),
  },
  '124-gzip-and-hash.js': { output: '{\n  "same": true,\n  "smaller": true\n}' },
  '125-signals.js': { exitCode: 143, output: '"handled"' },
  '126-require-what-was-written.js': {
    given: { a: '1' },
    stdout: lines('42 1', 'ERR_MODULE_NOT_FOUND'),
  },
  '127-environment.js': {
    env: { GREETING: 'héllo = 1', EMPTY: '' },
    stdout: lines(
      'EMPTY GREETING HOME LANG PATH TMPDIR TZ héllo = 1 UTC Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)',
    ),
    output: '""',
  },
  '128-detached-child.js': {
    given: { a: '1' },
    exitCode: 2,
    stdout: lines('parent', 'late'),
    variables: { a: '1', late: '1' },
  },
  '129-empty-object.js': {
    given: { a: '1' },
    stdout: lines('{} null'),
    variables: { b: '3', c: '3' },
  },
  '130-exact-strings.js': {
    exact: true,
    given: { text: '"old"' },
    variables: { text: '"new"' },
    warnings: ['variables'],
    differs: { because: LIVE, legacy: { variables: { text: '"old"' } } },
  },
  '131-exact-empty-list.js': { exact: true, given: { a: '"1"' }, variables: {} },
  '132-output-false.js': { output: 'false', condition: false },
  '133-output-zero.py': { output: '0', condition: false },
  '134-output-spoilt-at-the-end.sh': {
    stdout: lines('true'),
    warnings: ['output', 'condition'],
  },
  '135-variables-spoilt-at-the-end.sh': {
    given: { a: '1' },
    variables: { a: '2' },
    warnings: ['variables'],
    differs: { because: LIVE, legacy: { variables: { a: '1' } } },
  },
  '136-links-between-the-names.sh': {
    stdout: lines('5'),
    output: '{"condition": 5, "shared": true}',
    condition: true,
  },
  '137-hard-link-between-the-names.sh': {
    stdout: lines('2 32'),
    output: '{"condition": true, "twice": 2}',
    condition: true,
  },
  '138-variables-by-symbolic-link.sh': {
    given: { a: '1', b: '2' },
    stdout: lines('2'),
    variables: { a: '2', c: '3' },
  },
  '139-names-renamed-onto-each-other.sh': {
    given: { a: '1' },
    stdout: lines('[]'),
    output: '{"a": 2}',
    variables: { a: '2' },
    differs: { because: LIVE, legacy: { variables: { a: '1' } } },
  },
  '140-deleted-and-set-again.sh': {
    given: { a: '"1"', b: '2' },
    stdout: lines('true', '{"b":2,"a":"again"}'),
    variables: { b: '2', a: '"again"' },
  },
  '141-stdin-and-limits.sh': {
    given: { a: '1' },
    stdout: lines(
      '0',
      'no terminal',
      '0022',
      '600',
      'denied: 1',
      'read-only directory',
      'read-only file',
      '1000',
    ),
    output: '"u"',
  },
  '142-appenders.sh': { stdout: lines('400', '0', 'tail: late 3') },
  '143-names-and-depth.sh': {
    stdout: lines('too long', 'new\\nline', 'deep', '1500', 'removed', 'gone'),
  },
  '144-temporary-files.py': {
    stdout: lines('nameless []', 'True', '10000', '14', '2.0 True False'),
    output: '{"sent": true}',
  },
  '145-sqlite-wal.py': { stdout: lines('wal'), output: '{"codes": [0, 0], "sum": 60}' },
  '146-two-handles.py': {
    given: { a: '1' },
    stdout: lines("{'a': 1, 'b': 2}", "{'a': 3, 'b': 4}"),
    variables: { a: '3', b: '4' },
  },
  '147-many-files-at-once.js': { stdout: lines('true', '50 ENOENT', '2500 2n') },
};

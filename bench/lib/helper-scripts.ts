import { dialectOf, type Language } from '#test/helpers-legacy/languages.js';

/** `get 20`: what a script is told to do, and how often. */
export interface Command {
  readonly what: 'get' | 'set';
  readonly count: number;
}

export const EXTENSIONS: { readonly [L in Language]: 'sh' | 'py' | 'js' } = {
  jq: 'sh',
  plain: 'sh',
  python: 'py',
  node: 'js',
};

/** The variable that is asked for, and set. */
export const KEY = 'key_0005';

/**
 * Defines `obey`: calls the helper `count` times and prints two lines, what the last call answered and how many nanoseconds
 * all took together. Every `set` is of a new value, counted on from the clock: nothing else would be a change.
 */
const bash = `
value=\${EPOCHREALTIME/[.,]/}
obey() {
  local i begin=\${EPOCHREALTIME/[.,]/}
  if [[ $1 = get ]]; then
    for ((i = 1; i < $2; i++)); do cronium_getVariable ${KEY}; done > /dev/null
    cronium_getVariable ${KEY}
  else
    for ((i = 1; i < $2; i++)); do cronium_setVariable ${KEY} $((++value)); done > /dev/null
    cronium_setVariable ${KEY} $((++value))
  fi
  local end=\${EPOCHREALTIME/[.,]/}
  echo $(((end - begin) * 1000))
}
`;

const OBEY: { readonly [L in Language]: string } = {
  jq: bash,
  // From here on the helper runs nothing but built-in commands, so the whole PATH may go.
  plain: `PATH=/nowhere\n${bash}`,
  python: `
import sys, time
value = time.time_ns()
def obey(what, count):
    global value
    begin = time.perf_counter_ns()
    if what == 'get':
        for i in range(count): answer = cronium.getVariable('${KEY}')
    else:
        for i in range(count):
            value += 1
            answer = cronium.setVariable('${KEY}', str(value))
    end = time.perf_counter_ns()
    print(answer, end - begin, sep='\\n', flush=True)
`,
  node: `
let value = Date.now() * 1000;
function obey(what, count) {
  let answer;
  const begin = process.hrtime.bigint();
  if (what === 'get') for (let i = 0; i < count; i++) answer = cronium.getVariable('${KEY}');
  else for (let i = 0; i < count; i++) answer = cronium.setVariable('${KEY}', String(++value));
  const end = process.hrtime.bigint();
  console.log(answer + '\\n' + (end - begin));
}
`,
};

/** Obeys the lines on its stdin, such as `get 20`, until that ends. */
const LISTEN: { readonly [L in Language]: string } = {
  jq: 'while read -r what count; do obey "$what" "$count" < /dev/null; done\n',
  plain: 'while read -r what count; do obey "$what" "$count" < /dev/null; done\n',
  python: 'for line in sys.stdin: obey(line.split()[0], int(line.split()[1]))\n',
  node: `require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  obey(line.split(' ')[0], Number(line.split(' ')[1]));
});
`,
};

/** A script for a run directory, where the helper lies beside it. */
export const listeningScript = (language: Language): string =>
  dialectOf(language).prelude + OBEY[language] + LISTEN[language];

/** A script for `cronium run`, which brings the helper and no stdin. */
export function scriptThatObeys(language: Language, commands: readonly Command[]): string {
  const line = ({ what, count }: Command) =>
    EXTENSIONS[language] === 'sh' ? `obey ${what} ${count}` : `obey('${what}', ${count})`;
  return `${OBEY[language]}${commands.map(line).join('\n')}\n`;
}

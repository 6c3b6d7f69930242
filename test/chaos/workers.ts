import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * Scripts that check what they do, in the three languages: with the legacy helpers they store a sequence number and read it
 * back, count up variables that are merged by "add", set output and condition; and they create, append to, rename and
 * remove files. A fourth one does nothing but check files, and more strictly. Each prints numbered lines while it runs, and one
 * line of JSON at its end.
 */

/** Keys that every run of a worker counts up, and one that all workers do. */
export const countOf = (worker: string): string => `count_${worker}`;
export const SHARED_COUNT = 'count_all';
/** Of one run. */
export const sequenceOf = (run: string): string => `sequence_${run}`;

/** What a script says at its end of what it was told. */
export interface WorkerReport {
  /** The last sequence number that was stored, for all the script knows. */
  readonly sequence: number;
  /** How often it counted up, for all it knows. */
  readonly counted: number;
  /** Calls of helpers, or on files: beginning in milliseconds since the epoch, and how long each took. */
  readonly calls: readonly (readonly [number, number])[];
  /** Rounds of work on files. */
  readonly rounds: number;
  /** `line 1` to this were printed before the report. */
  readonly lines: number;
  readonly failures: readonly string[];
}

export interface Worker {
  readonly name: string;
  /** What its calls are. */
  readonly calls: 'helpers' | 'scratch';
  readonly extension: string;
  readonly script: string;
}

const BASH = `
run=$(cronium_input | jq -r .run)
until=$(( $(cronium_input | jq -r .seconds) * 1000000 + \${EPOCHREALTIME/./} ))
calls=() failures=() sequence=0 counted=0 rounds=0
timed() {
  local began=\${EPOCHREALTIME/./}
  "$@" > said 2>> complaints || failures+=("$* failed with $?: $(< said)")
  calls+=("[$(( began / 1000 )),$(( (\${EPOCHREALTIME/./} - began) / 1000 ))]")
}
expect() { [[ $2 == "$3" ]] || failures+=("$1: $3 instead of $2"); }
counting() { # KEY
  timed cronium_getVariable "$1"
  local now=$(< said)
  timed cronium_setVariable "$1" $(( \${now:-0} + 1 ))
  expect "setVariable $1" true "$(< said)"
}
: > complaints
while (( \${EPOCHREALTIME/./} < until )); do
  timed cronium_setVariable "sequence_$run" $(( sequence + 1 ))
  expect "setVariable of the sequence" true "$(< said)"
  sequence=$(( sequence + 1 ))
  timed cronium_getVariable "sequence_$run"
  expect "the sequence" $sequence "$(< said)"
  counting count_bash
  counting count_all
  counted=$(( counted + 1 ))
  timed cronium_output "{\\"n\\": $sequence}"
  timed cronium_setCondition $(( sequence % 2 ))

  echo a > first; echo b >> first; mv first second
  [[ ! -e first ]] || failures+=("a renamed file is still there")
  expect "a file" "a
b" "$(< second)"
  rm second
  [[ ! -e second ]] || failures+=("a removed file is still there")
  rounds=$(( rounds + 1 ))
  echo "line $rounds"
  sleep 0.05
done
[[ ! -s complaints ]] || failures+=("$(< complaints)")
jq -cn --argjson calls "[$(IFS=,; echo "\${calls[*]}")]" --argjson numbers "[$sequence,$counted,$rounds]" \\
  '{sequence: $numbers[0], counted: $numbers[1], rounds: $numbers[2], lines: $numbers[2], calls: $calls, failures: $ARGS.positional}' \\
  --args "\${failures[@]}"
`;

const PYTHON = `
import json, os, time

told = cronium.input()
sequence_key = 'sequence_' + told['run']
until = time.time() + told['seconds']
calls, failures, sequence, counted, rounds = [], [], 0, 0, 0

def timed(call, *args):
    began = time.time()
    answer = call(*args)
    calls.append([int(began * 1000), int((time.time() - began) * 1000)])
    return answer

def expect(what, wanted, found):
    if found != wanted:
        failures.append('{}: {!r} instead of {!r}'.format(what, found, wanted))

def counting(key):
    now = int(timed(cronium.getVariable, key) or 0)
    expect('setVariable ' + key, True, timed(cronium.setVariable, key, now + 1))

while time.time() < until:
    expect('setVariable of the sequence', True, timed(cronium.setVariable, sequence_key, sequence + 1))
    sequence += 1
    expect('the sequence', sequence, timed(cronium.getVariable, sequence_key))
    counting('count_python')
    counting('count_all')
    counted += 1
    timed(cronium.output, {'n': sequence})
    timed(cronium.setCondition, sequence % 2 == 1)

    with open('first', 'w') as file:
        file.write('a\\n')
    with open('first', 'a') as file:
        file.write('b\\n')
    os.rename('first', 'second')
    expect('a renamed file', False, os.path.exists('first'))
    with open('second') as file:
        expect('a file', 'a\\nb\\n', file.read())
    os.unlink('second')
    expect('a removed file', False, os.path.exists('second'))
    rounds += 1
    print('line', rounds)
    time.sleep(0.02)

print(json.dumps(dict(sequence=sequence, counted=counted, rounds=rounds, lines=rounds, calls=calls, failures=failures)))
`;

const NODE = `
const { appendFileSync, existsSync, readFileSync, renameSync, unlinkSync, writeFileSync } = require('node:fs');
const told = cronium.input();
const sequenceKey = 'sequence_' + told.run;
const until = Date.now() + told.seconds * 1000;
const calls = [], failures = [];
let sequence = 0, counted = 0, rounds = 0;
const timed = (call) => {
  const began = Date.now();
  const answer = call();
  calls.push([began, Date.now() - began]);
  return answer;
};
const expect = (what, wanted, found) => {
  if (found !== wanted) failures.push(what + ': ' + found + ' instead of ' + wanted);
};
const counting = (key) => {
  const now = Number(timed(() => cronium.getVariable(key)) ?? 0);
  expect('setVariable ' + key, true, timed(() => cronium.setVariable(key, now + 1)));
};
const idle = new Int32Array(new SharedArrayBuffer(4));
while (Date.now() < until) {
  expect('setVariable of the sequence', true, timed(() => cronium.setVariable(sequenceKey, sequence + 1)));
  sequence++;
  expect('the sequence', sequence, timed(() => cronium.getVariable(sequenceKey)));
  counting('count_node');
  counting('count_all');
  counted++;
  timed(() => cronium.output({ n: sequence }));
  timed(() => cronium.setCondition(sequence % 2 === 1));

  writeFileSync('first', 'a\\n');
  appendFileSync('first', 'b\\n');
  renameSync('first', 'second');
  expect('a renamed file', false, existsSync('first'));
  expect('a file', 'a\\nb\\n', readFileSync('second', 'utf8'));
  unlinkSync('second');
  expect('a removed file', false, existsSync('second'));
  rounds++;
  console.log('line ' + rounds);
  Atomics.wait(idle, 0, 0, 20);
}
console.log(JSON.stringify({ sequence, counted, rounds, lines: rounds, calls, failures }));
`;

const SCRATCH = readFileSync(
  fileURLToPath(new URL('../../../test/chaos/scratch-rounds.py', import.meta.url)),
  'utf8',
);

export const WORKERS: readonly Worker[] = [
  { name: 'bash', calls: 'helpers', extension: 'sh', script: BASH },
  { name: 'python', calls: 'helpers', extension: 'py', script: PYTHON },
  { name: 'node', calls: 'helpers', extension: 'js', script: NODE },
  { name: 'scratch', calls: 'scratch', extension: 'py', script: SCRATCH },
];

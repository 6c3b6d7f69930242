/** The operator's command: composes the commands with the terminal. */
import { buffer } from 'node:stream/consumers';
import { AUDIT_COMMANDS } from './audit-commands.js';
import { CERTIFICATE_COMMANDS } from './certificate-commands.js';
import { type Command, dispatch } from './command.js';
import { completionCommands } from './completion-commands.js';
import { doctor } from './doctor-command.js';
import { EXECUTION_COMMANDS } from './execution-commands.js';
import { down, status, up, upgrade } from './lifecycle-commands.js';
import { executionLogs } from './log-command.js';
import { PREPARED_COMMANDS } from './prepared-commands.js';
import { QUOTA_COMMANDS } from './quota-commands.js';
import { run } from './run-command.js';
import { STORE_COMMANDS } from './store-commands.js';
import { TOKEN_COMMANDS } from './token-commands.js';
import { USAGE_COMMANDS } from './usage-commands.js';
import { VARIABLE_COMMANDS } from './variable-commands.js';
import { MORE_VARIABLE_COMMANDS } from './variable-set-commands.js';

const COMMANDS: readonly Command[] = [
  up,
  down,
  upgrade,
  status,
  doctor,
  run,
  ...VARIABLE_COMMANDS,
  ...MORE_VARIABLE_COMMANDS,
  ...EXECUTION_COMMANDS,
  executionLogs,
  ...USAGE_COMMANDS,
  ...PREPARED_COMMANDS,
  ...AUDIT_COMMANDS,
  ...CERTIFICATE_COMMANDS,
  ...TOKEN_COMMANDS,
  ...STORE_COMMANDS,
  ...QUOTA_COMMANDS,
  ...completionCommands(() => COMMANDS),
];

// A reader that has seen enough (`| head`) is no failure of ours: nothing more is written, the exit code stays.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

const interrupted = new AbortController();
process.once('SIGINT', () => interrupted.abort());
process.once('SIGTERM', () => interrupted.abort());

// No await at the top: bin/cronium loads this as one script.
void dispatch(COMMANDS, process.argv.slice(2), {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(`${text.trimEnd()}\n`),
  stdin: async () => await buffer(process.stdin),
  env: process.env,
  signal: interrupted.signal,
  screen: () => {
    const { isTTY, columns, rows } = process.stdout;
    return isTTY && columns > 0 && rows > 0 ? { columns, rows } : undefined; // 0: it does not say
  },
}).then((code) => {
  process.exitCode = code;
});

/**
 * Checks a database in a process of its own: LevelDB ends its process when it meets certain damage. Standard input: one JSON
 * object; standard output: JSON lines, the last of them the report.
 */
import { text } from 'node:stream/consumers';
import { asBridgeError } from '#bridge/wire/errors.js';
import type { CheckReport, CheckRequest } from './check-process.js';
import { checkDatabase } from './store-checks.js';

const PROGRESS_EVERY_MS = 500;

const print = (line: CheckReport | { progress: number }) =>
  process.stdout.write(`${JSON.stringify(line)}\n`);

const { directory, key, hasHead } = JSON.parse(await text(process.stdin)) as CheckRequest; // our parent wrote it
let toldAt = Date.now();
try {
  const report = await checkDatabase(directory, Buffer.from(key, 'base64'), hasHead, (records) => {
    if (Date.now() - toldAt < PROGRESS_EVERY_MS) return;
    toldAt = Date.now();
    print({ progress: records });
  });
  print({ report });
} catch (error) {
  const { code, message } = asBridgeError(error);
  print({ failed: { code, message } });
}

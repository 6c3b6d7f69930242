import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { PrepareRequest, RunResult } from '#bridge/wire/control.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { SERVER_OPERATIONS } from '#bridge/wire/protocol.js';

/** What a process that takes over must know of a prepared execution. Times are milliseconds since the epoch. */
export const PreparedRecord = z.strictObject({
  executionId: ExecutionId,
  /** Its script is in the tree, not here. */
  request: PrepareRequest.omit({ script: true }),
  acceptedAt: z.int(),
  /** Its tree was made: one that is not there any more is not made again. */
  isReady: z.literal(true).optional(),
  /** Docker's id of the mount, while a container has it. */
  mountId: z.string().optional(),
  /** When a container had it first. */
  mountedAt: z.int().optional(),
  /** When one gave it back last. */
  unmountedAt: z.int().optional(),
  /** Secrets that its warnings are masked for: now and earlier values, by key. */
  secrets: z
    .strictObject({
      present: z.array(z.tuple([z.string(), z.string()])),
      replaced: z.array(z.string()),
    })
    .optional(),
  /** How it ended; what is left is to tell those who ask, and the server. */
  ended: z
    .strictObject({ result: RunResult, finish: SERVER_OPERATIONS['execution.finish'].params })
    .optional(),
});
export type PreparedRecord = z.infer<typeof PreparedRecord>;

const SUFFIX = '.json';

/** A file for every prepared execution, kept as `RunRecords` keeps those of runs: not synced, readable by root only. */
export class PreparedRecords {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  write(record: PreparedRecord): void {
    const path = this.#pathOf(record.executionId);
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  remove(executionId: ExecutionId): void {
    rmSync(this.#pathOf(executionId), { force: true });
  }

  /** All there are; one that cannot be read is nobody's, and its execution is found to be lost. */
  all(): PreparedRecord[] {
    const names = readdirSync(this.#directory).filter((name) => name.endsWith(SUFFIX));
    return names.flatMap((name) => {
      const path = join(this.#directory, name);
      try {
        return [PreparedRecord.parse(JSON.parse(readFileSync(path, 'utf8')))];
      } catch {
        rmSync(path, { force: true });
        return [];
      }
    });
  }

  #pathOf(executionId: ExecutionId): string {
    return join(this.#directory, `${executionId}${SUFFIX}`);
  }
}

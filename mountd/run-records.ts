import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { RunRequest, RunResult } from '#bridge/wire/control.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { SERVER_OPERATIONS } from '#bridge/wire/protocol.js';

/** What a process that takes over must know of a run. */
export const RunRecord = z.strictObject({
  executionId: ExecutionId,
  request: RunRequest,
  acceptedAt: z.int(),
  /** Numbers the script's name. */
  nonce: z.int(),
  /** Where its container waited for it; absent: it has one of its own, which has its name. */
  place: z.uuid().optional(),
  /** The script was about to be started. */
  startedAt: z.int().optional(),
  /** Secrets that what it prints is masked for: now and earlier values, by key. */
  secrets: z
    .strictObject({
      present: z.array(z.tuple([z.string(), z.string()])),
      replaced: z.array(z.string()),
    })
    .optional(),
  /** It was: one that is not there any more is not started again. */
  isStarted: z.literal(true).optional(),
  /** How it ended; what is left is to tell those who wait for it, and the server. */
  ended: z
    .strictObject({ result: RunResult, finish: SERVER_OPERATIONS['execution.finish'].params })
    .optional(),
});
export type RunRecord = z.infer<typeof RunRecord>;

/** The name of its container, and of its directory in the mount. */
export const placeOf = ({ place, executionId }: RunRecord): string => place ?? executionId;

const SUFFIX = '.json';

/**
 * A file for every run. Not synced: it must survive the process, and a machine that stops ends every run. The script and its input
 * are in it, readable by root only, until the run is over.
 */
export class RunRecords {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** Nothing that ran before goes on. */
  clear(): void {
    rmSync(this.#directory, { recursive: true, force: true });
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
  }

  write(record: RunRecord): void {
    const path = this.#pathOf(record.executionId);
    writeFileSync(`${path}.new`, textOf(record), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  remove(executionId: ExecutionId): void {
    rmSync(this.#pathOf(executionId), { force: true });
  }

  /** All there are; one that cannot be read is nobody's, and its execution is found to be lost. */
  all(): RunRecord[] {
    const names = readdirSync(this.#directory).filter((name) => name.endsWith(SUFFIX));
    return names.flatMap((name) => {
      try {
        const text = readFileSync(join(this.#directory, name), 'utf8');
        return [recordIn(text)];
      } catch {
        rmSync(join(this.#directory, name), { force: true });
        return [];
      }
    });
  }

  #pathOf(executionId: ExecutionId): string {
    return join(this.#directory, `${executionId}${SUFFIX}`);
  }
}

/** JSON has no bytes. */
function textOf(record: RunRecord): string {
  const { script } = record.request;
  const data = Buffer.from(script.data).toString('base64');
  return JSON.stringify({ ...record, request: { ...record.request, script: { ...script, data } } });
}

/** @throws what is no record of ours */
function recordIn(text: string): RunRecord {
  const record = JSON.parse(text) as { request: { script: { data: unknown } } };
  record.request.script.data = Buffer.from(String(record.request.script.data), 'base64');
  return RunRecord.parse(record);
}

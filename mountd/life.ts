import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import { errnoCode } from '#bridge/wire/errors.js';
import { Instance } from '#bridge/wire/protocol/executions.js';

const Kept = z.strictObject({ instance: Instance, bootId: z.string() });
type Kept = z.infer<typeof Kept>;

/** proc_sys_kernel(5): another one after every start of the machine. */
export const bootId = (): string =>
  readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trimEnd();

/**
 * What a mountd knows of the ones before it: under which name the server has their executions, and whether the machine was
 * started since. In a file of the state directory, which is one machine's.
 */
export class Life {
  /** Tells this machine's executions from those of another whose certificate has the same name. */
  readonly instance: string;
  /** Why what ran before does not run any more. */
  readonly reason: string;
  readonly #file: string;
  readonly #bootId: string;
  #kept: Kept | undefined;

  /** `boot` is for tests. @throws what a state directory that cannot be read or written throws */
  constructor(file: string, boot = bootId()) {
    this.#file = file;
    this.#bootId = boot;
    this.#kept = read(file);
    this.instance = this.#kept?.instance ?? randomUUID();
    const isSameBoot = this.#kept === undefined || this.#kept.bootId === boot;
    this.reason = isSameBoot ? 'mountd was restarted' : 'the machine was restarted';
    // Before the first execution: it must be found again. The boot is written once the server has heard of it.
    if (this.#kept === undefined) this.#write();
  }

  /** The executions from before have been reported: a restart from now on is one of mountd's alone. */
  settled(): void {
    if (this.#kept?.bootId !== this.#bootId) this.#write();
  }

  #write(): void {
    this.#kept = { instance: this.instance, bootId: this.#bootId };
    replace(this.#file, `${JSON.stringify(this.#kept)}\n`);
  }
}

/** Undefined when there is none, or none that can be read: then what ran before is the operator's to end. */
function read(file: string): Kept | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return Kept.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** The old text or the new one, also after a power failure. */
export function replace(file: string, text: string): void {
  const beside = `${file}.new`;
  const fd = openSync(beside, 'w', 0o600);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(beside, file);
  const directory = openSync(dirname(file), 'r');
  fsyncSync(directory);
  closeSync(directory);
}

import { createHmac } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fdatasyncSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { MAC_BYTES } from './commit-chain.js';

/** What the head file says of the newest group that was acknowledged. */
export interface Head {
  readonly sequence: number;
  readonly version: number;
  readonly mac: Buffer;
}

/** Slot: sequence (8 bytes), version (8), authenticator of the link (32), check (16): HMAC-SHA256 of the rest, cut. */
const CHECK_AT = 16 + MAC_BYTES;
const SLOT_BYTES = CHECK_AT + 16;

/** After a power cut the file may be this much older than the store. A killed process loses nothing of it. */
const SYNC_EVERY_MS = 1000;

/**
 * A witness outside the database: LevelDB takes a log whose end is missing for one that was never written further. Two
 * slots take turns, so that a torn write leaves the one before. Written after the group is durable, so never ahead of it.
 */
export class HeadFile implements Disposable {
  readonly #fd: number;
  readonly #key: Buffer;
  readonly #syncer: NodeJS.Timeout;
  #isDirty = false;
  #isSyncing = false;

  private constructor(fd: number, key: Buffer) {
    this.#fd = fd;
    this.#key = key;
    this.#syncer = setInterval(() => this.#sync(), SYNC_EVERY_MS).unref();
  }

  static exists(path: string): boolean {
    return existsSync(path);
  }

  /** Creates the file when it is missing. */
  static open(path: string, key: Buffer): HeadFile {
    return new HeadFile(openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600), key);
  }

  /** The newer of the slots that are whole; undefined when none is. */
  read(): Head | undefined {
    const slots = [0, 1].flatMap((slot) => this.#slot(slot) ?? []);
    return slots.sort((a, b) => b.sequence - a.sequence)[0];
  }

  write({ sequence, version, mac }: Head): void {
    const slot = Buffer.allocUnsafe(SLOT_BYTES);
    slot.writeBigUInt64BE(BigInt(sequence), 0);
    slot.writeBigUInt64BE(BigInt(version), 8);
    mac.copy(slot, 16);
    this.#check(slot).copy(slot, CHECK_AT);
    writeSync(this.#fd, slot, 0, SLOT_BYTES, (sequence % 2) * SLOT_BYTES);
    this.#isDirty = true;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#syncer);
    fdatasyncSync(this.#fd);
    closeSync(this.#fd);
  }

  #slot(index: number): Head | undefined {
    const slot = Buffer.alloc(SLOT_BYTES);
    const read = readSync(this.#fd, slot, 0, SLOT_BYTES, index * SLOT_BYTES);
    if (read < SLOT_BYTES || !this.#check(slot).equals(slot.subarray(CHECK_AT))) return undefined;
    return {
      sequence: Number(slot.readBigUInt64BE(0)),
      version: Number(slot.readBigUInt64BE(8)),
      mac: Buffer.from(slot.subarray(16, CHECK_AT)),
    };
  }

  #check(slot: Buffer): Buffer {
    const hmac = createHmac('sha256', this.#key)
      .update('head\n')
      .update(slot.subarray(0, CHECK_AT));
    return hmac.digest().subarray(0, SLOT_BYTES - CHECK_AT);
  }

  #sync(): void {
    if (!this.#isDirty || this.#isSyncing) return;
    this.#isDirty = false;
    this.#isSyncing = true;
    fdatasync(this.#fd, () => {
      this.#isSyncing = false; // an error here shows at close; the store itself is synced by LevelDB
    });
  }
}

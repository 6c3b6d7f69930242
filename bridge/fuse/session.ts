import { constants } from 'node:os';
import { isDying } from '#bridge/vfs/process-family.js';
import type { Volume } from '#bridge/vfs/volume.js';
import {
  IN,
  INIT_BITS,
  KERNEL_MAJOR,
  KERNEL_MINOR,
  KERNEL_MINOR_MIN,
  OPCODE_NAMES,
  OPCODES,
} from './abi.js';
import { Channel } from './channel.js';
import type { Driver, DriverLog } from './driver.js';
import { errnoFor } from './errno.js';
import { type Finish, type Handler, handlersFor } from './handlers.js';
import { Invalidation } from './invalidation.js';
import { Reply } from './reply.js';
import { Request } from './request.js';

/** Largest write and read: 256 pages, the kernel's own limit. */
const IO_BYTES_MAX = 1024 * 1024;
/** The kernel wants room for the header beside the data. */
const REQUEST_BYTES_MAX = IO_BYTES_MAX + 4096;
const MAX_PAGES = 256;
/** A connection's background requests are shared by all executions: never let one's readahead stop another's. */
const MAX_BACKGROUND = 65_535;

const { ENOSYS, EINTR, EPROTO, EIO } = constants.errno;

/** What we would like; the kernel offers what it has. Why these: fuse-facts.md, "Recommended driver". */
const WANTED = Object.values(INIT_BITS);

/** The kernel tells of the first signal only; a call that goes on after one is looked at this often. */
const DYING_CHECK_MS = 200;

interface Waiting {
  readonly low: number;
  readonly high: number;
  readonly pid: number;
  readonly opcode: number;
  /** A signal came while it waited. */
  interrupted: boolean;
}

/**
 * One FUSE connection: reads requests, has the volume do them, replies. A request that must wait is kept by its id, so
 * that an INTERRUPT finds it: an unanswered interrupt would leave a process that nothing can kill.
 */
export class FuseSession implements Driver {
  readonly #channel: Channel;
  readonly #request = new Request(Buffer.from(new ArrayBuffer(REQUEST_BYTES_MAX)));
  readonly #reply = new Reply(IO_BYTES_MAX);
  readonly #handlers: readonly (Handler | undefined)[];
  readonly #volume: Volume;
  readonly #log: DriverLog;
  readonly #waiting = new Map<number, Waiting>();
  #dyingCheck: NodeJS.Timeout | undefined;
  #started: () => void = () => {};
  /** Resolves when the kernel's INIT was answered: the mount works from then on. */
  readonly ready: Promise<void>;
  /** Resolves when the connection is gone: unmounted, aborted, or lost (then with the reason). */
  readonly ended: Promise<Error | undefined>;

  /** `fd` is /dev/fuse after mount(2): reading before gives EPERM. The session owns it and closes it at its end. */
  constructor(fd: number, volume: Volume, log: DriverLog) {
    this.#volume = volume;
    this.#log = log;
    const named = handlersFor(volume);
    this.#handlers = OPCODE_NAMES.map((name) => (name === undefined ? undefined : named[name]));
    this.ready = new Promise((resolve) => {
      this.#started = resolve;
    });
    let ended: (error: Error | undefined) => void = () => {};
    this.ended = new Promise((resolve) => {
      ended = resolve;
    });
    this.#channel = new Channel(fd, this.#request.bytes, (length) => this.#received(length), ended);
    volume.kernel = new Invalidation(this.#channel);
  }

  close(): void {
    clearInterval(this.#dyingCheck);
    this.#channel.close();
  }

  /** Nothing may escape from here: an exception would end the loop, and every execution of the mount with it. */
  #received(length: number): void {
    try {
      this.#dispatch(length);
    } catch (error) {
      this.#log.warn(
        { op: OPCODE_NAMES[this.#request.opcode], err: error },
        'request failed unforeseen',
      );
    }
  }

  #dispatch(length: number): void {
    const request = this.#request;
    request.length = length;
    if (length < IN.BODY || request.u32(IN.LEN) !== length) {
      this.#log.warn({ length, said: request.u32(IN.LEN) }, 'malformed request dropped');
      return;
    }
    const { opcode } = request;
    switch (opcode) {
      case OPCODES.FORGET:
        if (request.has(8)) this.#volume.forget(request.node, request.u64(IN.BODY));
        return;
      case OPCODES.BATCH_FORGET:
        this.#forgetMany();
        return;
      case OPCODES.INTERRUPT:
        if (request.has(8)) this.#interrupted(request.u32(IN.BODY), request.u32(IN.BODY + 4));
        return;
      case OPCODES.DESTROY:
        return; // only block-device mounts wait for an answer
      case OPCODES.INIT:
        this.#init();
        return;
      default:
        this.#answer(opcode);
    }
  }

  #answer(opcode: number): void {
    const request = this.#request;
    const reply = this.#reply;
    const low = request.uniqueLow;
    const high = request.uniqueHigh;
    const handler = this.#handlers[opcode];
    reply.begin(low, high);
    if (handler === undefined) reply.fail(ENOSYS);
    else {
      const { pid } = request;
      try {
        const later = handler(request, reply);
        if (later !== undefined) {
          this.#defer(later, { low, high, pid, opcode, interrupted: false });
          return;
        }
      } catch (error) {
        reply.fail(this.#errno(error, opcode));
      }
    }
    this.#send();
  }

  #defer(later: Promise<Finish>, waiting: Waiting): void {
    const key = uniqueKey(waiting.low, waiting.high);
    this.#waiting.set(key, waiting);
    const settle = (fill: (reply: Reply) => void) => {
      // Interrupted meanwhile: it has had its answer, and what it started went on without it.
      if (this.#waiting.get(key) !== waiting) return;
      this.#waiting.delete(key);
      this.#reply.begin(waiting.low, waiting.high);
      fill(this.#reply);
      this.#send();
    };
    later.then(
      (finish) => settle(finish),
      (error: unknown) => settle((reply) => reply.fail(this.#errno(error, waiting.opcode))),
    );
  }

  /**
   * Any signal sends an INTERRUPT, SIGCHLD too, and a close(2) that fails for it would lose the word "durable". So a
   * waiting call goes on, unless its process is dying: then it is answered at once and the commit ends without it.
   */
  #interrupted(low: number, high: number): void {
    const key = uniqueKey(low, high);
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    if (isDying(waiting.pid)) {
      this.#abandon(key, waiting);
      return;
    }
    waiting.interrupted = true;
    this.#dyingCheck ??= setInterval(() => this.#checkDying(), DYING_CHECK_MS);
  }

  #checkDying(): void {
    let left = false;
    for (const [key, waiting] of this.#waiting) {
      if (!waiting.interrupted) continue;
      if (isDying(waiting.pid)) this.#abandon(key, waiting);
      else left = true;
    }
    if (left) return;
    clearInterval(this.#dyingCheck);
    this.#dyingCheck = undefined;
  }

  #abandon(key: number, waiting: Waiting): void {
    this.#waiting.delete(key);
    this.#reply.begin(waiting.low, waiting.high);
    this.#reply.fail(EINTR);
    this.#send();
  }

  /** struct fuse_batch_forget_in { u32 count, dummy }, then { u64 nodeid, nlookup } each */
  #forgetMany(): void {
    const request = this.#request;
    const count = request.u32(IN.BODY);
    if (!request.has(8 + count * 16)) return;
    for (let i = 0; i < count; i++) {
      const at = IN.BODY + 8 + i * 16;
      this.#volume.forget(request.u64(at), request.u64(at + 8));
    }
  }

  /**
   * struct fuse_init_in { u32 major, minor, max_readahead, flags, flags2 }; fuse_init_out, 64 bytes, { u32 major, minor,
   * max_readahead, flags; u16 max_background, congestion_threshold; u32 max_write, time_gran; u16 max_pages,
   * map_alignment; u32 flags2, … }
   */
  #init(): void {
    const request = this.#request;
    const reply = this.#reply;
    // What a short message leaves out counts as 0, and version 0 is refused.
    const [major, minor, readahead, flags] = [0, 4, 8, 12].map((at) =>
      request.has(at + 4) ? request.u32(IN.BODY + at) : 0,
    );
    reply.begin(request.uniqueLow, request.uniqueHigh);
    if (major !== KERNEL_MAJOR || minor === undefined || minor < KERNEL_MINOR_MIN) {
      this.#log.warn({ major, minor }, 'this kernel is too old: Linux 5.4 or later is needed');
      reply.fail(EPROTO);
      this.#send();
      return;
    }
    const offered = [flags ?? 0, request.has(20) ? request.u32(IN.BODY + 16) : 0];
    const granted = [0, 0];
    for (const bit of WANTED) {
      const word = bit >> 5;
      granted[word] = ((granted[word] ?? 0) | ((offered[word] ?? 0) & (1 << (bit & 31)))) >>> 0;
    }
    const out = Buffer.alloc(64);
    out.writeUInt32LE(KERNEL_MAJOR, 0);
    out.writeUInt32LE(Math.min(minor, KERNEL_MINOR), 4);
    out.writeUInt32LE(readahead ?? 0, 8);
    out.writeUInt32LE(granted[0] ?? 0, 12);
    out.writeUInt16LE(MAX_BACKGROUND, 16);
    out.writeUInt16LE(MAX_BACKGROUND, 18);
    out.writeUInt32LE(IO_BYTES_MAX, 20);
    out.writeUInt32LE(1, 24); // times have nanoseconds
    out.writeUInt16LE(MAX_PAGES, 28);
    out.writeUInt32LE(granted[1] ?? 0, 32);
    reply.data(out);
    this.#send();
    this.#log.info({ minor, flags: granted.map((word) => word.toString(16)) }, 'kernel connected');
    this.#started();
  }

  #errno(error: unknown, opcode: number): number {
    return errnoFor(error, OPCODE_NAMES[opcode], this.#log);
  }

  #send(): void {
    this.#reply.end();
    try {
      this.#channel.reply(this.#reply.bytes, this.#reply.length);
    } catch (error) {
      // The kernel did not like the reply; whoever waits for it must still get one.
      this.#log.warn({ err: error }, 'reply refused by the kernel');
      this.#reply.fail(EIO);
      this.#reply.end();
      this.#channel.reply(this.#reply.bytes, this.#reply.length);
    }
  }
}

/** Ids count up from 2; bit 63 marks one that is sent again. As one number they stay below 2^53 for 10^15 requests. */
const uniqueKey = (low: number, high: number): number => low + (high & 0x7fff_ffff) * 0x1_0000_0000;

import { constants } from 'node:os';
import { ENOSPC, EINTR as INTERRUPTED } from '#bridge/vfs/fs-error.js';
import { uniqueOf } from '#bridge/vfs/journal.js';
import { fateOf } from '#bridge/vfs/process-family.js';
import type { Volume } from '#bridge/vfs/volume.js';
import { BridgeError } from '#bridge/wire/errors.js';
import {
  IN,
  INIT_BITS,
  KERNEL_MAJOR,
  KERNEL_MINOR,
  KERNEL_MINOR_MIN,
  NOTIFY_RESEND,
  nameOf,
  OPERATION_NAMES,
  OPERATIONS,
  type OperationName,
  OUT_HEADER_BYTES,
} from './abi.js';
import { Channel } from './channel.js';
import { countAnswer } from './count.js';
import type { Driver, DriverLog } from './driver.js';
import { errnoFor } from './errno.js';
import { FairShare } from './fair-share.js';
import { type Finish, type Handler, handlersFor } from './handlers.js';
import { Invalidation } from './invalidation.js';
import { Reply } from './reply.js';
import { Request } from './request.js';

/** Bit 63 of a request's number: it was sent to a process before this one. */
const RESENT = 0x8000_0000;

/** What a process that takes a mount over knows from the one before. */
export interface TakenOver {
  /** By the kernel's number of a request, what it was answered; undefined bytes stand for "done". */
  readonly answers: ReadonlyMap<bigint, Uint8Array | undefined>;
}

export interface SessionOptions {
  /** Flags to leave out, as if the kernel did not have them. */
  readonly without?: readonly InitFlag[];
  /** The kernel has been answered its INIT by an earlier process. */
  readonly takenOver?: TakenOver;
  /** Called before INIT is answered. `canResend`: another process can take the mount over. */
  readonly onNegotiated?: (canResend: boolean) => void;
}

/** Largest write and read: 256 pages, the kernel's own limit. */
const IO_BYTES_MAX = 1024 * 1024;
/** The kernel wants room for the header beside the data. */
const REQUEST_BYTES_MAX = IO_BYTES_MAX + 4096;
const MAX_PAGES = 256;
/**
 * Requests nobody waits for (pages of mappings, releases) that the kernel sends ahead. They are answered at once, so no one
 * execution can hold the places; and a read waits behind no more than this many writes of 1 MiB.
 */
const MAX_BACKGROUND = 16;

const { ENOSYS, EPROTO, EIO } = constants.errno;
const EINTR = INTERRUPTED.errno;

export type InitFlag = keyof typeof INIT_BITS;

/** What we would like; the kernel offers what it has. Why these: fuse-facts.md, "Recommended driver". */
const WANTED = Object.keys(INIT_BITS) as InitFlag[];

/** Without it O_TRUNC would arrive as a truncate(2) after an open that seemed to read; every kernel since 2.6.24 has it. */
const NEEDED: InitFlag = 'ATOMIC_O_TRUNC';

/** The kernel tells of the first signal only, and never of an exit; a call that waits is looked at this often. */
const FATE_CHECK_MS = 200;

/**
 * A process that exits with a changed document open waits for its commit, so that what runs after it comes after it; but no
 * signal can end this wait, and so it ends by itself. The commit goes on, and the end of the execution waits for it.
 */
const EXIT_WAIT_MS = 1_000;

interface Waiting {
  readonly low: number;
  readonly high: number;
  readonly node: number;
  readonly pid: number;
  readonly opcode: number;
  /** Set when any signal ends the wait; otherwise only the death of the process does. */
  readonly interrupt: AbortController | undefined;
  /** performance.now() */
  readonly since: number;
  /** Lets the journal have what the request changed. */
  readonly release: (() => void) | undefined;
  /** A signal has come that did not end it. */
  wasInterrupted?: true;
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
  readonly #fairShare: FairShare;
  readonly #wanted: readonly InitFlag[];
  readonly #onNegotiated: (canResend: boolean) => void;
  readonly #answers: ReadonlyMap<bigint, Uint8Array | undefined>;
  #fateCheck: NodeJS.Timeout | undefined;
  #started: () => void = () => {};
  #isStarted = false;
  #end: (error: Error | undefined) => void = () => {};
  /** Resolves when the kernel's INIT was answered: the mount works from then on. */
  readonly ready: Promise<void>;
  /** Resolves when the connection is gone: unmounted, aborted, or refused or lost (then with the reason). */
  readonly ended: Promise<Error | undefined>;

  /**
   * `fd` is /dev/fuse after mount(2): reading before gives EPERM. The session owns it and closes it at its end.
   */
  constructor(
    fd: number,
    volume: Volume,
    log: DriverLog,
    { without = [], takenOver, onNegotiated = () => {} }: SessionOptions = {},
  ) {
    this.#volume = volume;
    this.#log = log;
    this.#wanted = WANTED.filter((flag) => !without.includes(flag));
    this.#fairShare = new FairShare((reply) => this.#deliver(reply, reply.byteLength));
    const named: Partial<Record<OperationName, Handler>> = handlersFor(volume);
    const handlers: (Handler | undefined)[] = [];
    for (const name of OPERATION_NAMES) handlers[OPERATIONS[name].code] = named[name];
    this.#handlers = handlers;
    this.ready = new Promise((resolve) => {
      this.#started = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#channel = new Channel(
      fd,
      this.#request.bytes,
      (length) => this.#received(length),
      (error) => this.#end(error),
    );
    volume.kernel = new Invalidation(this.#channel);
    this.#onNegotiated = onNegotiated;
    this.#answers = takenOver?.answers ?? new Map<bigint, Uint8Array | undefined>();
    if (takenOver !== undefined) this.#takeOver();
  }

  /**
   * What was read and not answered by the process before is sent again. At once: what this process has read would be sent again
   * along with it, and done twice.
   */
  #takeOver(): void {
    const message = Buffer.alloc(OUT_HEADER_BYTES);
    message.writeUInt32LE(OUT_HEADER_BYTES, 0);
    message.writeInt32LE(NOTIFY_RESEND, 4);
    try {
      this.#channel.notifyNow(message);
    } catch (error) {
      this.#log.warn({ err: error }, 'the kernel does not send again what was not answered'); // ENODEV: it is unmounted
    }
    this.#isStarted = true;
    this.#started();
  }

  close(): void {
    clearInterval(this.#fateCheck);
    this.#channel.close();
  }

  /** Nothing may escape from here: an exception would end the loop, and every execution of the mount with it. */
  #received(length: number): void {
    try {
      this.#dispatch(length);
    } catch (error) {
      this.#log.warn({ op: nameOf(this.#request.opcode), err: error }, 'request failed unforeseen');
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
      case OPERATIONS.FORGET.code:
        if (request.has(8)) this.#volume.forget(request.node, request.u64(IN.BODY));
        return;
      case OPERATIONS.BATCH_FORGET.code:
        this.#forgetMany();
        return;
      case OPERATIONS.INTERRUPT.code:
        if (request.has(8)) this.#interrupted(request.u32(IN.BODY), request.u32(IN.BODY + 4));
        return;
      case OPERATIONS.DESTROY.code:
      case OPERATIONS.NOTIFY_REPLY.code:
        return; // nobody waits for an answer
      case OPERATIONS.INIT.code:
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
    // What nobody asked for, so that from here on all that is marked is of this request.
    if (this.#volume.dirtyJournals.size > 0) this.#volume.flushJournals();
    reply.begin(low, high);
    if ((high & RESENT) !== 0 && this.#answersAgain(low, high)) {
      this.#send();
      return;
    }
    if (handler === undefined) reply.fail(ENOSYS);
    else {
      const { pid } = request;
      try {
        const later = handler(request, reply);
        if (later !== undefined) {
          const [answer, interrupt] =
            'interrupt' in later ? [later.answer, later.interrupt] : [later, undefined];
          const tree = this.#volume.inodes.get(request.node)?.tree;
          if (tree !== undefined) this.#fairShare.charge(tree, request.length);
          const since = performance.now();
          // Names that are changed before their commit is known may be changed back.
          const release = tree?.journal?.isDirty === true ? tree.journal.hold() : undefined;
          const { node } = request;
          this.#defer(answer, { low, high, node, pid, opcode, interrupt, since, release });
          return;
        }
      } catch (error) {
        reply.fail(this.#errno(error, opcode, request.node));
      }
    }
    reply.end();
    this.#note(request.node, low, high);
    const tree = this.#volume.inodes.get(request.node)?.tree;
    if (tree !== undefined) {
      countAnswer(tree.counts, opcode, reply);
      if (this.#fairShare.parks(tree, request.length, reply.bytes, reply.length)) return;
    }
    this.#send();
  }

  /** What a request changed is in the journal before it is answered, and the answer along with it. */
  #note(node: number, low: number, high: number): void {
    if (this.#volume.dirtyJournals.size === 0) return;
    const { bytes, length } = this.#reply;
    this.#volume.flushJournals(node, { low, high, bytes, length });
  }

  /** It was done, and perhaps answered, by an earlier process: doing it twice is not doing it once. */
  #answersAgain(low: number, high: number): boolean {
    const unique = uniqueOf(low, high);
    if (!this.#answers.has(unique)) return false;
    const answer = this.#answers.get(unique);
    if (answer !== undefined) this.#reply.copy(answer);
    return true;
  }

  #defer(later: Promise<Finish>, waiting: Waiting): void {
    const key = uniqueKey(waiting.low, waiting.high);
    this.#waiting.set(key, waiting);
    if (waiting.interrupt === undefined)
      this.#fateCheck ??= setInterval(() => this.#checkFates(), FATE_CHECK_MS);
    const settle = (fill: (reply: Reply) => void) => {
      waiting.release?.();
      // Interrupted meanwhile: it has had its answer, and what it started went on without it.
      if (this.#waiting.get(key) !== waiting) return;
      this.#waiting.delete(key);
      this.#reply.begin(waiting.low, waiting.high);
      fill(this.#reply);
      this.#reply.end();
      this.#note(waiting.node, waiting.low, waiting.high);
      this.#count(waiting);
      this.#send();
    };
    later.then(
      (finish) => settle(finish),
      (error: unknown) =>
        settle((reply) => reply.fail(this.#errno(error, waiting.opcode, waiting.node))),
    );
  }

  /**
   * Any signal sends an INTERRUPT, SIGCHLD too, and a close(2) that fails for it would lose the word "durable". So a call
   * that commits goes on, unless its process is dying: then it is answered at once and the commit ends without it. A call
   * that only waits for something to come ends with EINTR.
   */
  #interrupted(low: number, high: number): void {
    const key = uniqueKey(low, high);
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    if (waiting.interrupt !== undefined) {
      this.#abandon(key, waiting);
      return;
    }
    waiting.wasInterrupted = true;
    if (fateOf(waiting.pid) === 'killed') this.#abandon(key, waiting);
  }

  /** Nobody may be kept waiting whom no signal can reach. What any signal ends is not looked at: it may wait for days. */
  #checkFates(): void {
    const now = performance.now();
    let isNeeded = false;
    for (const [key, waiting] of this.#waiting) {
      if (waiting.interrupt !== undefined) continue;
      isNeeded = true;
      const waitedMs = now - waiting.since;
      if (waitedMs < FATE_CHECK_MS) continue;
      const fate = fateOf(waiting.pid);
      const isUnreachable =
        fate === 'exiting' || (fate === 'unseen' && waiting.wasInterrupted === true);
      if (fate === 'killed' || (isUnreachable && waitedMs >= EXIT_WAIT_MS))
        this.#abandon(key, waiting);
    }
    if (isNeeded) return;
    clearInterval(this.#fateCheck);
    this.#fateCheck = undefined;
  }

  #abandon(key: number, waiting: Waiting): void {
    // The host is at work under a lock that the caller holds; it takes milliseconds, and others must not come in between.
    if (waiting.opcode === OPERATIONS.FALLOCATE.code) return;
    this.#waiting.delete(key);
    waiting.interrupt?.abort(INTERRUPTED);
    this.#reply.begin(waiting.low, waiting.high);
    this.#reply.fail(EINTR);
    this.#count(waiting);
    this.#send();
  }

  /** What was answered late. */
  #count({ node, opcode }: Waiting): void {
    const tree = this.#volume.inodes.get(node)?.tree;
    if (tree !== undefined) countAnswer(tree.counts, opcode, this.#reply);
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
    const offered = [flags ?? 0, request.has(20) ? request.u32(IN.BODY + 16) : 0];
    const isNewEnough = major === KERNEL_MAJOR && minor !== undefined && minor >= KERNEL_MINOR_MIN;
    const hasNeeded =
      this.#wanted.includes(NEEDED) && ((offered[0] ?? 0) & (1 << INIT_BITS[NEEDED])) !== 0;
    if (!isNewEnough || minor === undefined || !hasNeeded) {
      const text = `this kernel speaks FUSE ${major}.${minor}${hasNeeded ? '' : ` without ${NEEDED}`}: Linux 5.4 or later is needed`;
      this.#log.warn({ major, minor }, text);
      reply.fail(EPROTO);
      this.#send();
      if (!this.#isStarted) this.#end(new Error(text));
      return;
    }
    const granted = [0, 0];
    for (const flag of this.#wanted) {
      const bit = INIT_BITS[flag];
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
    // Any process may take over from the first request on.
    this.#onNegotiated(((granted[1] ?? 0) & (1 << (INIT_BITS.HAS_RESEND & 31))) !== 0);
    this.#send();
    this.#log.info({ minor, flags: granted.map((word) => word.toString(16)) }, 'kernel connected');
    this.#isStarted = true;
    this.#started();
  }

  #errno(error: unknown, opcode: number, node: number): number {
    const errno = errnoFor(error, nameOf(opcode), this.#log);
    // The server's store can be full, too: that is not the execution's room.
    if (errno === ENOSPC.errno && !(error instanceof BridgeError))
      this.#volume.inodes.get(node)?.tree.roomRefused();
    return errno;
  }

  #send(): void {
    this.#reply.end();
    this.#deliver(this.#reply.bytes, this.#reply.length);
  }

  #deliver(reply: Uint8Array, length: number): void {
    try {
      this.#channel.reply(reply, length);
    } catch (error) {
      // The kernel did not like the reply; whoever waits for it must still get one.
      this.#log.warn({ err: error }, 'reply refused by the kernel');
      const header = new DataView(reply.buffer, reply.byteOffset);
      const failure = this.#reply;
      failure.begin(header.getUint32(8, true), header.getUint32(12, true));
      failure.fail(EIO);
      failure.end();
      this.#channel.reply(failure.bytes, failure.length);
    }
  }
}

/** Ids count up from 2; bit 63 marks one that is sent again. As one number they stay below 2^53 for 10^15 requests. */
const uniqueKey = (low: number, high: number): number => low + (high & 0x7fff_ffff) * 0x1_0000_0000;

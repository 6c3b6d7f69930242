import { constants } from 'node:fs';
import { EAGAIN, ESTALE } from './fs-error.js';
import { type Caller, Inode } from './inode.js';
import type { Tree } from './tree.js';

const { S_IFREG } = constants;

/** What one open(2) of a stream reads from: bytes that arrive over time, each delivered once. */
export interface Stream {
  /** Whether `read` would answer at once: with bytes, or because the end has come. */
  readonly isReadable: boolean;
  /**
   * At most `size` bytes that are there; none = the end. Called only while `isReadable`.
   */
  take(size: number): Uint8Array;
  /** Calls `wake` once, when more has come, or the end; until then the returned function takes that back. */
  whenMore(wake: () => void): () => void;
  /** Called once, after the last close(2). */
  close(): void;
}

/**
 * A file whose reads wait for what comes: no size, no offsets, every open file description a stream of its own. Who
 * defines one says what its streams carry.
 */
export abstract class StreamFile extends Inode {
  constructor(tree: Tree, mode: number, owner: Pick<Caller, 'uid' | 'gid'>) {
    super(tree, S_IFREG | (mode & 0o7777), owner);
  }

  get size(): number {
    return 0;
  }

  /** open(2). @throws FsError */
  abstract stream(flags: number, caller: Caller): Stream;
}

export interface OpenStream {
  readonly id: number;
  readonly file: StreamFile;
  readonly stream: Stream;
  /** Aborted when the stream is closed: at the last close(2), or because its tree is gone while somebody reads. */
  readonly closing: AbortController;
}

/**
 * read(2): waits until there is something. `isBlocking` false = EAGAIN instead. An aborted wait takes nothing from the
 * stream, and rejects with the signal's reason.
 */
export function readStream(
  { stream, closing }: OpenStream,
  size: number,
  isBlocking: boolean,
  interrupt: AbortSignal,
): Uint8Array | Promise<Uint8Array> {
  if (stream.isReadable) return stream.take(size);
  if (!isBlocking) throw EAGAIN;
  const signal = AbortSignal.any([interrupt, closing.signal]);
  return new Promise((resolve, reject) => {
    let takeBack = () => {};
    const onAbort = () => {
      takeBack();
      reject(signal.reason instanceof Error ? signal.reason : ESTALE);
    };
    const wait = () => {
      takeBack = stream.whenMore(() => {
        // Another reader of the same description may have been quicker.
        if (!stream.isReadable) {
          wait();
          return;
        }
        signal.removeEventListener('abort', onAbort);
        resolve(stream.take(size));
      });
    };
    signal.addEventListener('abort', onAbort, { once: true });
    wait();
  });
}

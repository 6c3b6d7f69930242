import { writeSync, writev } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { promisify } from 'node:util';
import { errnoCode } from '#bridge/wire/errors.js';

const writevAsync = promisify(writev);

/** What libuv's pipe handle offers; Node exports no name for it. */
interface PipeHandle {
  open(fd: number): void;
  /** Closes the descriptor at once; `closed` is called in a later turn. */
  close(closed?: () => void): void;
}
type PipeConstructor = new (type: number) => PipeHandle;

/** SOCKET in Node's pipe_wrap: a pipe that carries data. */
const PIPE_SOCKET = 0;

/**
 * /dev/fuse through libuv's epoll. The kernel hands over one whole request a read; libuv takes a character device in a
 * pipe handle, and `onread` puts each request into the same buffer without allocating. 2.6x faster than fs.read, which
 * crosses the thread pool (fuse-facts.md, section 0).
 */
export class Channel {
  readonly #fd: number;
  readonly #socket: Socket;
  /** From the moment the descriptor is closed its number may be somebody else's: nothing is written to it any more. */
  #isOpen = true;
  /** Notifications that threads of the pool are writing; the descriptor stays until they are done. */
  readonly #notifying = new Set<Promise<unknown>>();

  /** Calls `received` with the length of each request in `buffer`, and `ended` once, when the mount is gone. */
  constructor(
    fd: number,
    buffer: Buffer,
    received: (length: number) => void,
    ended: (error?: Error) => void,
  ) {
    this.#fd = fd;
    const Pipe = pipeConstructor();
    const handle = new Pipe(PIPE_SOCKET);
    handle.open(fd);
    const close = handle.close.bind(handle);
    handle.close = (closed) => {
      this.#isOpen = false;
      if (this.#notifying.size === 0) close(closed);
      else void Promise.allSettled(this.#notifying).then(() => close(closed));
    };
    const options = {
      handle,
      readable: true,
      writable: false,
      onread: {
        buffer: () => buffer,
        callback: (length: number) => {
          received(length);
          return true;
        },
      },
    };
    // `handle` is an option of the constructor that the public types leave out.
    this.#socket = new Socket(options as ConstructorParameters<typeof Socket>[0]);
    let over = false;
    const end = (error?: Error) => {
      if (over) return;
      over = true;
      ended(error);
    };
    // ENODEV: unmounted. ECONNABORTED: aborted through fusectl, told apart by the flag ABORT_ERROR.
    this.#socket.on('error', (error) => {
      const gone = errnoCode(error) === 'ENODEV' || errnoCode(error) === 'ECONNABORTED';
      end(gone ? undefined : error);
    });
    this.#socket.on('close', () => end());
    this.#socket.resume();
  }

  /** Sends a reply. A request that was interrupted or aborted meanwhile has nobody left to hear it: ENOENT is normal. */
  reply(bytes: Uint8Array, length: number): void {
    if (!this.#isOpen) return;
    try {
      writeSync(this.#fd, bytes, 0, length);
    } catch (error) {
      const code = errnoCode(error);
      if (code !== 'ENOENT' && code !== 'ENODEV' && code !== 'ECONNABORTED') throw error;
    }
  }

  /**
   * Sends a notification from a thread of the pool: the kernel may need locks that are held by calls this loop has yet
   * to answer, so writing it here could dead-lock (fuse-facts.md, section 1). ENOENT = the kernel knows nothing of it.
   */
  async notify(...parts: Uint8Array[]): Promise<void> {
    if (!this.#isOpen) return;
    const writing = writevAsync(this.#fd, parts);
    this.#notifying.add(writing);
    try {
      await writing;
    } catch (error) {
      const code = errnoCode(error);
      if (code !== 'ENOENT' && code !== 'ENODEV' && code !== 'ECONNABORTED' && code !== 'ENOTDIR')
        throw error;
    } finally {
      this.#notifying.delete(writing);
    }
  }

  /** For what needs no lock of anybody's, before anything else is read or written. */
  notifyNow(message: Uint8Array): void {
    writeSync(this.#fd, message);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** The class of pipe handles, taken from a handle that the public interface makes: no deprecated process.binding. */
function pipeConstructor(): PipeConstructor {
  const server = createServer();
  server.listen(`\0cronium-${process.pid}-${Math.random()}`); // abstract socket: no file, gone with close
  const { _handle: handle } = server as unknown as { _handle: { constructor: PipeConstructor } };
  server.close();
  return handle.constructor;
}

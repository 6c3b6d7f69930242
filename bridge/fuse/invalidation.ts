import type { Directory } from '#bridge/vfs/inode.js';
import type { KernelCache } from '#bridge/vfs/volume.js';
import { NOTIFY_INVAL_ENTRY, OUT_HEADER_BYTES } from './abi.js';
import type { Channel } from './channel.js';

/**
 * Tells the kernel to forget what it cached. Notifications to one connection go out one after the other: more at once
 * would only fill the thread pool, which the backing files need too.
 */
export class Invalidation implements KernelCache {
  readonly #channel: Channel;
  #last: Promise<void> = Promise.resolve();

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** struct fuse_notify_inval_entry_out { u64 parent; u32 namelen, flags }, then the name with its NUL */
  async entryChanged(directory: Directory, name: string): Promise<void> {
    const message = Buffer.alloc(OUT_HEADER_BYTES + 16 + name.length + 1);
    message.writeUInt32LE(message.length, 0);
    message.writeInt32LE(NOTIFY_INVAL_ENTRY, 4);
    message.writeBigUInt64LE(BigInt(directory.id), OUT_HEADER_BYTES);
    message.writeUInt32LE(name.length, OUT_HEADER_BYTES + 8);
    message.write(name, OUT_HEADER_BYTES + 16, 'latin1');
    const send = async () => await this.#channel.notify(message);
    this.#last = this.#last.then(send, send);
    await this.#last;
  }
}

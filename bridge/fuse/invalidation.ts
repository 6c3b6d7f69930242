import type { Directory } from '#bridge/vfs/inode.js';
import type { Tree } from '#bridge/vfs/tree.js';
import type { KernelCache } from '#bridge/vfs/volume.js';
import { NOTIFY_INVAL_ENTRY, NOTIFY_POLL, OUT_HEADER_BYTES } from './abi.js';
import type { Channel } from './channel.js';

/**
 * Tells the kernel to forget what it cached. The kernel takes the directory's lock for it, which a call that waits for
 * the server may hold; so notifications of one tree go out one after the other, and never wait for another tree's.
 */
export class Invalidation implements KernelCache {
  readonly #channel: Channel;
  readonly #last = new WeakMap<Tree, Promise<void>>();

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
    const last = this.#last.get(directory.tree) ?? Promise.resolve();
    const sent = last.then(send, send);
    this.#last.set(directory.tree, sent);
    await sent;
  }

  /** struct fuse_notify_poll_wakeup_out { u64 kh } */
  async pollChanged(pollHandle: number): Promise<void> {
    const message = Buffer.alloc(OUT_HEADER_BYTES + 8);
    message.writeUInt32LE(message.length, 0);
    message.writeInt32LE(NOTIFY_POLL, 4);
    message.writeBigUInt64LE(BigInt(pollHandle), OUT_HEADER_BYTES);
    await this.#channel.notify(message);
  }
}

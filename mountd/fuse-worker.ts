import { type MessagePort, parentPort } from 'node:worker_threads';
import { type KernelMount, serveFuse } from './serve-fuse.js';

/**
 * The thread of the kernel driver: it answers the kernel and does nothing else, so a busy main thread never delays a stat. Its
 * first message says what to serve; until then it has loaded its programs and waits.
 */
const begin = (port: MessagePort) =>
  port.once('message', (mount: KernelMount) => serveFuse(port, mount));
if (parentPort !== null) begin(parentPort);

import { parentPort, workerData } from 'node:worker_threads';
import { type KernelMount, serveFuse } from './serve-fuse.js';

/** The thread of the kernel driver: it answers the kernel and does nothing else, so a busy main thread never delays a stat. */
if (parentPort !== null) serveFuse(parentPort, workerData as KernelMount);

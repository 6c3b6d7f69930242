// The serving process of `npm run bench -- memory`: a mount with one tree, served as mountd does it, and nothing else.
//
//   serve.js BYTES_MAX     prints the directory to work in; serves until its stdin ends
//
// Backing files are below $TMPDIR.
import { once } from 'node:events';
import { FakeRuntime, TestMount } from '#test/support/mounted.js';

await using mount = await TestMount.open();
const quota = { bytesMax: Number(process.argv[2]), inodesMax: 1000 };
const tree = await mount.tree(new FakeRuntime(), { quota });
process.stdout.write(`${tree.work}\n`);
process.stdin.resume();
await once(process.stdin, 'end');

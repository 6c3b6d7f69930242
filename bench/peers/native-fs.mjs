// The second peer of `npm run bench -- fs`: memory-fs.c again, on the npm package fuse-native. Its JavaScript runs in the
// main thread, each request crosses to it from a thread of libfuse 2 and back. Options are as near to our mount's as the
// package has them: TTLs, pages kept on open, no access checks of its own, no timer a request. It has no option for writes
// above 4 KiB.
//
//   native-fs.mjs MOUNTPOINT TTL_SECONDS NEW_FILES     prints "ready", serves until SIGTERM
//
// A directory made with a name that starts with "new-" is born with NEW_FILES files of 4 KiB, f000000 and up.
// The parent's message { burn: true } keeps this thread busy for 20 of every 40 ms, { burn: false } ends that; the answer is
// the same message.
import { constants as fileTypes } from 'node:fs';
import { constants } from 'node:os';
import Fuse from 'fuse-native';

const NEW_BYTES = 4096;
const BURN_MS = 20;
const { S_IFDIR, S_IFREG } = fileTypes;
const { ENOENT, ENOTSUP } = constants.errno;

const [mountPoint, ttl, newFiles] = process.argv.slice(2);
if (newFiles === undefined) {
  process.stderr.write('usage: native-fs.mjs MOUNTPOINT TTL_SECONDS NEW_FILES\n');
  process.exit(2);
}

let nextIno = 1;

/** What getattr answers, with the content beside it; `data` is larger than the file while it grows. */
function makeNode(mode, data) {
  const now = Date.now();
  return {
    ino: nextIno++,
    mode,
    nlink: 1,
    uid: 0,
    gid: 0,
    size: data.length,
    blocks: Math.ceil(data.length / 4096) * 8,
    blksize: 4096,
    atime: now,
    mtime: now,
    ctime: now,
    data,
  };
}

const EMPTY = Buffer.alloc(0);
/** Shared by all new files and replaced by the first write: the files of many rounds would be gigabytes. */
const NEW_DATA = Buffer.alloc(NEW_BYTES);

/** By path, as the package names them. */
const nodes = new Map([['/', makeNode(S_IFDIR | 0o755, EMPTY)]]);
/** By handle: an open file outlives its name. */
const opened = new Map();
let nextHandle = 1;

function open(node, done) {
  const handle = nextHandle++;
  opened.set(handle, node);
  done(0, handle);
}

function make(path, mode, data) {
  const node = makeNode(mode, data);
  nodes.set(path, node);
  return node;
}

function resize(node, size) {
  if (size > node.data.length || node.data === NEW_DATA) {
    const grown = Buffer.allocUnsafe(Math.max(size, node.data.length * 2));
    node.data.copy(grown, 0, 0, node.size);
    node.data = grown;
  }
  if (size > node.size) node.data.fill(0, node.size, size);
  node.size = size;
  node.blocks = Math.ceil(size / 4096) * 8;
}

const operations = {
  getattr: (path, done) => {
    const node = nodes.get(path);
    if (node === undefined) done(-ENOENT);
    else done(0, node);
  },
  readdir: (path, done) => {
    const prefix = path === '/' ? '/' : `${path}/`;
    const inside = [...nodes.keys()].filter(
      (p) => p !== '/' && p.startsWith(prefix) && !p.includes('/', prefix.length),
    );
    done(0, ['.', '..', ...inside.map((p) => p.slice(prefix.length))]);
  },
  mkdir: (path, mode, done) => {
    make(path, S_IFDIR | (mode & 0o7777), EMPTY);
    if (path.slice(path.lastIndexOf('/') + 1).startsWith('new-'))
      for (let i = 0; i < Number(newFiles); i++)
        make(`${path}/f${String(i).padStart(6, '0')}`, S_IFREG | 0o644, NEW_DATA);
    done(0);
  },
  open: (path, _flags, done) => {
    const node = nodes.get(path);
    if (node === undefined) done(-ENOENT);
    else open(node, done);
  },
  create: (path, mode, done) => open(make(path, S_IFREG | (mode & 0o7777), EMPTY), done),
  read: (_path, handle, buffer, length, offset, done) => {
    const node = opened.get(handle);
    const end = Math.min(node.size, offset + length);
    done(end > offset ? node.data.copy(buffer, 0, offset, end) : 0);
  },
  write: (_path, handle, buffer, length, offset, done) => {
    const node = opened.get(handle);
    if (offset + length > node.size || node.data === NEW_DATA)
      resize(node, Math.max(node.size, offset + length));
    buffer.copy(node.data, offset, 0, length);
    node.mtime = Date.now();
    done(length);
  },
  truncate: (path, size, done) => {
    resize(nodes.get(path), size);
    done(0);
  },
  // Asked for at every close, as our mount is.
  flush: (_path, _handle, done) => done(0),
  release: (_path, handle, done) => {
    opened.delete(handle);
    done(0);
  },
  unlink: (path, done) => done(nodes.delete(path) ? 0 : -ENOENT),
  // libfuse 2 renames a file that is unlinked while it is open.
  rename: (from, to, done) => {
    const node = nodes.get(from);
    if (node === undefined || (node.mode & S_IFDIR) !== 0) {
      done(node === undefined ? -ENOENT : -ENOTSUP);
      return;
    }
    nodes.delete(from);
    nodes.set(to, node);
    done(0);
  },
};

const fuse = new Fuse(mountPoint, operations, {
  allowOther: true,
  defaultPermissions: true,
  fsname: 'cronium-bench',
  kernelCache: true,
  entryTimeout: ttl,
  attrTimeout: ttl,
  timeout: false,
});

fuse.mount((error) => {
  if (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
  process.stdout.write('ready\n');
});

let burning;

function burn() {
  const end = performance.now() + BURN_MS;
  while (performance.now() < end);
  burning = setTimeout(burn, BURN_MS);
}

process.on('message', (message) => {
  clearTimeout(burning);
  process.send(message);
  if (message.burn) setImmediate(burn);
});
process.on('disconnect', () => process.exit()); // the bench is gone

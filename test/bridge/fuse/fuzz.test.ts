import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { IN, nameOf, OPERATIONS, type OperationName } from '#bridge/fuse/abi.js';
import { type Handler, handlersFor } from '#bridge/fuse/handlers.js';
import { Reply } from '#bridge/fuse/reply.js';
import { Request } from '#bridge/fuse/request.js';
import { FsError } from '#bridge/vfs/fs-error.js';
import type { Directory } from '#bridge/vfs/inode.js';
import { BridgeError, errnoOf } from '#bridge/wire/errors.js';
import { Messages } from '#test/fixtures/fuse-messages.js';
import { BareVolume, faultsOf, useVolume } from '#test/fixtures/volume-check.js';
import { finished } from '#test/support/installation.js';
import { FakeRuntime } from '#test/support/mounted.js';
import { Random, seedOf } from '#test/support/random.js';

/**
 * Requests as no kernel sends them, first to the handlers, then to a whole session over a socket pair. SEED=n repeats a
 * run; MESSAGES=n makes it longer.
 */
const MESSAGES = Number(process.env['MESSAGES'] ?? 30_000);
const CHECK_EVERY = 3000;
/** One message may write 70 KB and list a directory; a loaded machine pauses, but no message costs a second. */
const MESSAGE_MS_MAX = 1000;
const IO_BYTES_MAX = 1024 * 1024;
const SESSION_PROGRAM = fileURLToPath(new URL('../../fixtures/fuzz-session.js', import.meta.url));

const UNTOUCHED = ['.tmp', 'input.json', 'event.json', 'variables.json'];

t.setTimeout(120_000);

/** The handlers over a volume, called as the session calls them. */
class Table implements Disposable {
  readonly bare = new BareVolume();
  readonly runtime = new FakeRuntime({ a: '1' });
  readonly volume = this.bare.volume;
  /** Of the tree the messages know; and of one they do not know, which must stay as it is. */
  readonly work: Directory;
  readonly untouched: Directory;
  readonly #handlers: Partial<Record<OperationName, Handler>> = handlersFor(this.volume);
  readonly #request = new Request(Buffer.from(new ArrayBuffer(IO_BYTES_MAX + 4096)));
  readonly reply = new Reply(IO_BYTES_MAX);

  constructor() {
    this.bare.tree('tree-a', this.runtime);
    this.bare.tree('tree-b', new FakeRuntime({ b: '1' }));
    this.bare.tree('tree-c', new FakeRuntime({ c: '1' }));
    this.work = this.bare.work('tree-a');
    this.untouched = this.bare.work('tree-c');
  }

  /** The positive errno, 0 for success, -1 when there is no handler; what else escapes is rethrown. */
  async call(name: OperationName, message: Buffer): Promise<number> {
    const handler = this.#handlers[name];
    if (handler === undefined) return -1;
    message.copy(this.#request.bytes);
    this.#request.length = message.length;
    this.reply.begin(this.#request.uniqueLow, this.#request.uniqueHigh);
    try {
      const later = handler(this.#request, this.reply);
      if (later !== undefined) {
        const finish = await ('interrupt' in later ? later.answer : later);
        this.reply.begin(0, 0);
        finish(this.reply);
      }
      this.reply.end();
      return 0 - this.reply.bytes.readInt32LE(4);
    } catch (error) {
      this.reply.fail(errnoIn(error));
      return errnoIn(error);
    }
  }

  [Symbol.dispose](): void {
    this.bare[Symbol.dispose]();
  }
}

/** @throws what is no expected failure */
function errnoIn(error: unknown): number {
  const errno =
    error instanceof FsError
      ? error.errno
      : error instanceof BridgeError
        ? errnoOf(error)
        : error instanceof Error && 'errno' in error && typeof error.errno === 'number'
          ? Math.abs(error.errno)
          : 0;
  if (!Number.isInteger(errno) || errno < 1 || errno > 4095) throw error;
  return errno;
}

void t.test('whatever a request says, a handler answers it or fails with an errno', async (t) => {
  const seed = seedOf(process.env);
  t.comment(`SEED=${seed}`);
  using table = new Table();
  const messages = new Messages(new Random(seed));
  messages.nodes.push(table.work.id, table.work.parent.id, table.bare.work('tree-b').id);
  const errnos = new Map<number, number>();
  let slowest = 0;
  for (let i = 1; i <= MESSAGES; i++) {
    const message = messages.next();
    const opcode = message.readUInt32LE(IN.OPCODE);
    const name = nameOf(opcode);
    if (name === undefined) throw new Error(`opcode ${opcode} has no name`);
    const before = performance.now();
    let errno: number;
    try {
      errno = await table.call(name, message);
    } catch (error) {
      t.fail(`SEED=${seed}, message ${i}, ${name}: ${String(error)}`, {
        stack: error instanceof Error ? (error.stack ?? '') : '',
        message: message.subarray(0, 200).toString('hex'),
      });
      return;
    }
    slowest = Math.max(slowest, performance.now() - before);
    errnos.set(errno, (errnos.get(errno) ?? 0) + 1);
    const { reply } = table;
    if (reply.length < 16 || reply.length > reply.bytes.length) {
      t.fail(`SEED=${seed}, message ${i}, ${name}: a reply of ${reply.length} bytes`);
      return;
    }
    if (errno === 0) messages.learn(opcode, reply.bytes.subarray(0, reply.length));
    if (i % CHECK_EVERY !== 0 && i !== MESSAGES) continue;
    const faults = faultsOf(table.volume);
    if (faults.length > 0) {
      t.fail(`SEED=${seed}, by message ${i}: ${faults.slice(0, 5).join('; ')}`);
      return;
    }
    useVolume(table.volume, table.untouched, `fresh-${i}`);
  }
  t.ok(slowest < MESSAGE_MS_MAX, `the slowest took ${slowest.toFixed(1)} ms`);
  t.ok((errnos.get(0) ?? 0) > MESSAGES / 20, 'enough of them did something');
  t.comment(`answers by errno: ${[...errnos].map(([errno, n]) => `${errno}: ${n}`).join(', ')}`);
  t.same(
    table.untouched.listing().map(({ name }) => name),
    UNTOUCHED,
    'the other execution is as it was',
  );
  t.same(table.bare.errors.map(String), [], 'and nothing failed behind the scenes');
});

void t.test('each rule, one message', async (t) => {
  using table = new Table();
  const messages = new Messages(new Random(1));
  const { work, volume } = table;
  const u32 = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
  const name = (text: string) => Buffer.from(`${text}\0`, 'latin1');
  const send = async (op: OperationName, node: number, ...body: Buffer[]) =>
    await table.call(op, messages.message(OPERATIONS[op].code, node, Buffer.concat(body)));
  const { EINVAL, EIO, ESTALE, ENAMETOOLONG } = constants.errno;
  const make = async (text: string) =>
    await send('CREATE', work.id, u32(0o102, 0o644, 0, 0), name(text));

  t.equal(await send('LOOKUP', work.id, name('a/b')), EINVAL, 'a slash in a name');
  t.equal(await send('LOOKUP', work.id, Buffer.from('abc')), EIO, 'a name without its NUL');
  t.equal(await send('LOOKUP', work.id, name('n'.repeat(300))), ENAMETOOLONG, '300 bytes');
  t.equal(await send('GETATTR', 12_345, u32(0, 0, 0, 0)), ESTALE, 'a node that never was');
  t.equal(await make('f'), 0, 'and a good one works');
  const file = work.get('f');
  if (file === undefined) throw new Error('not made');
  t.equal(
    await send('WRITE', file.id, u32(0, 0, 0, 0, 4096, 0, 0, 0, 0, 0), Buffer.from('short')),
    EINVAL,
    'a WRITE of more than it carries',
  );
  t.equal(
    await send('SETXATTR', file.id, u32(500, 0), name('user.a'), Buffer.from('v')),
    EINVAL,
    'a SETXATTR of more than it carries',
  );

  await t.test(
    'a request that ends inside its body is refused, not completed from the one before',
    async (t) => {
      // FATTR_MODE, and mode 0600 where struct fuse_setattr_in has it
      const body = Buffer.alloc(88);
      body.writeUInt32LE(1, 0);
      body.writeUInt32LE(0o600, 68);
      t.equal(await send('SETATTR', file.id, body), 0);
      t.equal(await make('g'), 0);
      const other = work.get('g');
      t.equal(await send('SETATTR', file.id, body), 0);
      t.not(await send('SETATTR', other?.id ?? 0), 0, 'SETATTR without a body');
      t.equal((other?.mode ?? 0) & 0o777, 0o644, 'and nothing was changed');
      for (const op of ['OPEN', 'READ', 'WRITE', 'FALLOCATE', 'GETXATTR', 'LISTXATTR'] as const)
        t.not(await send(op, file.id), 0, `${op} without a body`);
      for (const op of ['READDIR', 'READDIRPLUS'] as const)
        t.not(await send(op, work.id), 0, `${op} without a body`);
    },
  );

  await t.test('no name becomes "." or ".." by rename', async (t) => {
    for (const newName of ['.', '..'])
      t.not(await send('RENAME', work.id, u32(work.id, 0), name('f'), name(newName)), 0, newName);
    t.same(faultsOf(volume), []);
  });

  await t.test('exchanging a name with itself keeps the file', async (t) => {
    await make('h');
    const errno = await send('RENAME2', work.id, u32(work.id, 0, 2, 0), name('h'), name('h'));
    t.equal(errno, 0, 'rename(2): the same file, nothing happens');
    t.ok(work.get('h'), 'it is still there');
  });

  await t.test(
    'the directories of the executions cannot be renamed, exchanged or removed',
    async (t) => {
      const before = [...volume.root.entries()].map(({ name: key, inode }) => `${key} ${inode.id}`);
      t.not(await send('RENAME', 1, u32(1, 0), name('tree-b'), name('moved')), 0, 'rename');
      t.not(
        await send('RENAME2', 1, u32(1, 0, 2, 0), name('tree-a'), name('tree-b')),
        0,
        'exchange',
      );
      t.not(await send('RMDIR', 1, name('tree-a')), 0, 'rmdir');
      t.same(
        [...volume.root.entries()].map(({ name: key, inode }) => `${key} ${inode.id}`),
        before,
      );
    },
  );

  await t.test('nothing moves into a directory that was removed', async (t) => {
    await send('MKDIR', work.id, u32(0o755, 0), name('gone'));
    const gone = work.get('gone');
    await send('RMDIR', work.id, name('gone'));
    await make('stays');
    t.not(await send('RENAME', work.id, u32(gone?.id ?? 0, 0), name('stays'), name('x')), 0);
    t.ok(work.get('stays'));
  });
});

void t.test('a session answers what it can, drops what it cannot, and goes on', async (t) => {
  const seed = seedOf(process.env);
  t.comment(`SEED=${seed}`);
  // A SOCK_SEQPACKET pair keeps the borders of messages, as /dev/fuse does, and Node cannot make one.
  const launcher = `
import os, socket, sys
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for s in (a, b):
    try: s.setsockopt(socket.SOL_SOCKET, 32, 4 << 20) # SO_SNDBUFFORCE: a message is one packet
    except OSError: pass
b.setblocking(False)
for s, fd in ((a, 23), (b, 24)): os.dup2(s.fileno(), fd, inheritable=True)
os.execv(sys.argv[1], sys.argv[1:])`;
  const child = spawn(
    'python3',
    [
      '-c',
      launcher,
      process.execPath,
      '--enable-source-maps',
      SESSION_PROGRAM,
      String(seed),
      String(MESSAGES),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], timeout: 90_000 },
  );
  const { code, stdout, stderr } = await finished(child);
  t.equal(code, 0, `SEED=${seed} ${stderr}`);
  const report = JSON.parse(stdout || '{"problems":["no report"]}') as {
    problems: string[];
    notes: string[];
  };
  t.same(report.problems, []);
  for (const note of report.notes ?? []) t.comment(note);
});

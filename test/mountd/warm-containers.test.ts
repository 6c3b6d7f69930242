import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import t from 'tap';
import type { RunningContainer } from '#mountd/containers.js';
import { type ContainerKind, WarmContainers } from '#mountd/warm-containers.js';
import { eventually } from '#test/support/installation.js';

/** Which containers wait, without Docker: what is asked of the engine and of the mount is written down. */
class Machine {
  readonly running = new Map<string, { image: string; end: (code: number) => void }>();
  readonly trees = new Set<string>();
  readonly opened: string[] = [];
  starts = 0;
  atOnce = 0;
  mostAtOnce = 0;
  failure: Error | undefined;
  isHeard = true;
  treesCannotBeRemoved = false;

  readonly mount = {
    createWaitingTree: async ({ id }: { id: string }) => {
      this.trees.add(id);
    },
    gateReached: async () => {},
    openGate: async (id: string) => {
      this.opened.push(id);
    },
    removeTree: async (id: string) => {
      if (this.treesCannotBeRemoved) throw new Error('the file system has ended');
      this.trees.delete(id);
    },
  };

  readonly containers = {
    start: async ({ place, image }: { place: string; image: string }) => {
      this.atOnce++;
      this.mostAtOnce = Math.max(this.mostAtOnce, this.atOnce);
      await sleep(5);
      this.atOnce--;
      if (this.failure !== undefined) throw this.failure;
      this.starts++;
      let end: (code: number) => void = () => {};
      const exited = new Promise<number>((resolve) => {
        end = resolve;
      });
      this.running.set(place, { image, end });
      return {
        isHeard: this.isHeard,
        exit: async () => ({ code: await exited, oomKilled: false }),
        [Symbol.asyncDispose]: async () => {
          this.running.delete(place);
        },
      } as unknown as RunningContainer;
    },
  };

  warm(most: number, idleMs?: number): WarmContainers {
    return new WarmContainers({
      mount: this.mount,
      containers: this.containers,
      most,
      mountPoint: '/mnt',
      hostsFile: '/hosts',
      uid: 1000,
      gid: 1000,
      quota: { bytesMax: 1, inodesMax: 1 },
      log: pino({ level: 'silent' }),
      ...(idleMs !== undefined && { idleMs }),
    });
  }

  get images(): string[] {
    return [...this.running.values()].map(({ image }) => image).sort();
  }
}

const kind = (imageId: string, more: Partial<ContainerKind> = {}): ContainerKind => ({
  imageId,
  memoryBytes: 256,
  cpus: 1,
  ...more,
});

void t.test('nothing waits before anything was run, and never when none shall', async (t) => {
  const machine = new Machine();
  await using none = machine.warm(0);
  none.used(kind('a'));
  await using warm = machine.warm(2);
  t.equal(warm.take(kind('a')), undefined);
  await sleep(30);
  t.equal(machine.starts, 0);
});

void t.test('of each kind as many wait as the last runs were of it', async (t) => {
  const machine = new Machine();
  await using warm = machine.warm(3);
  for (const image of ['a', 'b', 'a']) warm.used(kind(image));
  await eventually('three wait', () => warm.count === 3);
  t.same(machine.images, ['a', 'a', 'b']);
  for (const image of ['c', 'c']) warm.used(kind(image));
  await eventually('the oldest made room', () => machine.images.join('') === 'acc');
  t.equal(machine.mostAtOnce, 1, 'they are started one after another');
  t.equal(machine.trees.size, 3);
});

void t.test('one is taken for its own kind only, and once', async (t) => {
  const machine = new Machine();
  await using warm = machine.warm(1);
  warm.used(kind('a'));
  await eventually('it waits', () => warm.count === 1);
  t.equal(warm.take(kind('b')), undefined);
  t.equal(warm.take(kind('a', { memoryBytes: 512 })), undefined);
  t.equal(warm.take(kind('a', { cpus: 2 })), undefined);
  await using taken = warm.take(kind('a'));
  t.ok(taken);
  t.equal(warm.take(kind('a')), undefined);
  t.equal(warm.has(taken?.place ?? ''), false, 'it is not ours any more');
  const container = await taken?.go();
  t.same(machine.opened, [taken?.place]);
  await t.rejects(async () => await taken?.go(), /in use/);
  await container?.[Symbol.asyncDispose]();
});

void t.test('one that was taken and not used goes with its tree', async (t) => {
  const machine = new Machine();
  await using warm = machine.warm(1);
  warm.used(kind('a'));
  await eventually('it waits', () => warm.count === 1);
  {
    await using taken = warm.take(kind('a'));
    t.ok(taken);
  }
  t.equal(machine.running.size + machine.trees.size, 0);
});

void t.test('one that dies while it waits is forgotten until the kind is run again', async (t) => {
  const machine = new Machine();
  await using warm = machine.warm(1);
  warm.used(kind('a'));
  await eventually('it waits', () => warm.count === 1);
  for (const { end } of machine.running.values()) end(137);
  await eventually('it is gone', () => machine.running.size + machine.trees.size === 0);
  t.equal(warm.take(kind('a')), undefined);
  warm.used(kind('a'));
  await eventually('another one waits', () => warm.count === 1);
});

void t.test('an engine that fails is asked again with the next run', async (t) => {
  const machine = new Machine();
  await using warm = machine.warm(2);
  machine.failure = new Error('no engine');
  warm.used(kind('a'));
  await sleep(50);
  t.same([machine.starts, warm.count, machine.trees.size], [0, 0, 0]);
  machine.failure = undefined;
  warm.used(kind('a'));
  await eventually('one waits', () => warm.count === 1);
});

void t.test('when nothing is run for a while none waits', async (t) => {
  const machine = new Machine();
  await using warm = machine.warm(2, 100);
  warm.used(kind('a'));
  await eventually('one waits', () => warm.count === 1);
  await eventually('none does', () => machine.running.size + machine.trees.size === 0);
  t.equal(machine.starts, 1);
});

void t.test('one whose output is lost is not used', async (t) => {
  const machine = new Machine();
  machine.isHeard = false;
  await using warm = machine.warm(1);
  warm.used(kind('a'));
  await eventually('it waits', () => warm.count === 1);
  await using taken = warm.take(kind('a'));
  await t.rejects(async () => await taken?.go(), /its output is lost/);
  t.same(machine.opened, []);
});

void t.test('when the file system has died they go all the same', async (t) => {
  const machine = new Machine();
  const warm = machine.warm(2);
  warm.used(kind('a'));
  await eventually('it waits', () => warm.count === 1);
  machine.treesCannotBeRemoved = true;
  await warm[Symbol.asyncDispose]();
  t.equal(machine.running.size, 0);
});

void t.test('at the end all go, also one that is being started', async (t) => {
  const machine = new Machine();
  const warm = machine.warm(3);
  for (const image of ['a', 'b', 'c']) warm.used(kind(image));
  await eventually('one waits', () => warm.count > 0);
  await warm[Symbol.asyncDispose]();
  t.equal(machine.running.size + machine.trees.size, 0);
  warm.used(kind('a'));
  await sleep(30);
  t.equal(machine.running.size, 0);
});

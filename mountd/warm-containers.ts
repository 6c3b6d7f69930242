import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Quota } from '#bridge/vfs/tree.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import type { Containers, RunningContainer } from './containers.js';
import { WAITING } from './launch-files.js';
import type { MountHost } from './mount-host.js';

/** Nobody has run anything like it for so long: it does not wait any longer. */
const IDLE_MS = 10 * 60_000;
/** From its start to the gate it takes milliseconds; on a machine that is busy, seconds. */
const REACHED_MS = 30_000;

/** At the end, for one that is being started. */
const CLOSE_MS = 5_000;

/** What cannot be changed any more once a container runs. */
export interface ContainerKind {
  /** The engine's id: a tag may come to mean another image. */
  readonly imageId: string;
  readonly memoryBytes: number;
  readonly cpus: number;
}

export interface WarmContainersOptions {
  readonly mount: Pick<MountHost, 'createWaitingTree' | 'gateReached' | 'openGate' | 'removeTree'>;
  readonly containers: Pick<Containers, 'start'>;
  /** How many wait at most, of all kinds together; 0 = none ever does. */
  readonly most: number;
  readonly mountPoint: string;
  readonly hostsFile: string;
  readonly uid: number;
  readonly gid: number;
  readonly quota: Quota;
  readonly log: Logger;
  readonly idleMs?: number;
}

/**
 * A container that waits at its gate, and will serve one execution. Whoever has it disposes of it, or of what `go` gives and of
 * the tree.
 */
export class WarmContainer implements AsyncDisposable {
  /** Its name, and its directory's in the mount. */
  readonly place: string;
  readonly kind: ContainerKind;
  readonly #mount: WarmContainersOptions['mount'];
  #container: RunningContainer | undefined;

  constructor(
    place: string,
    kind: ContainerKind,
    container: RunningContainer,
    mount: WarmContainersOptions['mount'],
  ) {
    this.place = place;
    this.kind = kind;
    this.#container = container;
    this.#mount = mount;
  }

  /** Opens the gate: what its tree holds now is run. @throws BridgeError `unavailable` when it has died while it waited */
  async go(): Promise<RunningContainer> {
    const container = this.#container;
    if (container === undefined) throw new BridgeError('unavailable', 'its container is in use');
    // Docker was restarted meanwhile, and let it live: nobody would hear its script.
    if (!container.isHeard) throw new BridgeError('unavailable', 'its output is lost');
    await this.#mount.openGate(this.place);
    this.#container = undefined;
    return container;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const container = this.#container;
    this.#container = undefined;
    if (container === undefined) return;
    await container[Symbol.asyncDispose]();
    await this.#mount.removeTree(this.place).catch(() => {}); // whoever serves the mount has died, and says so
  }
}

/**
 * Containers that were started before anybody asked for them, of the kinds that the last runs were of: two runs of one kind in a
 * row, and two of it wait. Each serves one execution and is removed, like any other.
 */
export class WarmContainers implements AsyncDisposable {
  readonly #options: WarmContainersOptions;
  readonly #waiting: WarmContainer[] = [];
  /** Of the last runs, the newest first. */
  #recent: ContainerKind[] = [];
  #starting: string | undefined;
  #isFilling = false;
  #filled = Promise.resolve();
  #isClosed = false;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: WarmContainersOptions) {
    this.#options = options;
  }

  /** Whether the container at this place is one of those that wait, or are about to. */
  has(place: string): boolean {
    return this.#starting === place || this.#waiting.some((one) => one.place === place);
  }

  /** How many wait. */
  get count(): number {
    return this.#waiting.length;
  }

  /** Takes one of this kind, if one waits. */
  take(kind: ContainerKind): WarmContainer | undefined {
    const at = this.#waiting.findIndex((one) => isSame(one.kind, kind));
    return at < 0 ? undefined : this.#waiting.splice(at, 1)[0];
  }

  /** One of this kind has been run: one waits when the next run asks. */
  used(kind: ContainerKind): void {
    const { most, idleMs = IDLE_MS } = this.#options;
    if (most === 0 || this.#isClosed) return;
    this.#recent = [kind, ...this.#recent].slice(0, most);
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      this.#recent = [];
      this.#fill();
    }, idleMs).unref();
    this.#fill();
  }

  /** Removes all that wait. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#idle);
    // One that Docker is slow to start is removed by the next process.
    await Promise.race([this.#filled, sleep(CLOSE_MS, undefined, { ref: false })]);
    await Promise.all(this.#waiting.splice(0).map(async (one) => await one[Symbol.asyncDispose]()));
  }

  /** One after another: runs that start now have the machine first. */
  #fill(): void {
    if (this.#isFilling) return;
    this.#isFilling = true;
    this.#filled = this.#fillAll();
  }

  async #fillAll(): Promise<void> {
    const { log } = this.#options;
    for (;;) {
      for (const one of this.#superfluous()) await one[Symbol.asyncDispose]();
      const kind = this.#missing();
      if (kind === undefined || this.#isClosed) {
        this.#isFilling = false;
        return;
      }
      try {
        this.#waiting.push(await this.#start(kind));
      } catch (error) {
        // The next run of the kind tries again.
        log.warn({ reason: asBridgeError(error).message }, 'no container was started ahead');
        this.#recent = this.#recent.filter((one) => !isSame(one, kind));
      }
    }
  }

  /** A kind of which fewer wait than were run of late. */
  #missing(): ContainerKind | undefined {
    const waiting = this.#waiting.map(({ kind }) => kind);
    for (const kind of this.#recent) {
      const at = waiting.findIndex((one) => isSame(one, kind));
      if (at < 0) return kind;
      waiting.splice(at, 1);
    }
    return undefined;
  }

  /** Takes those out that nobody has asked for lately. */
  #superfluous(): WarmContainer[] {
    const wanted = [...this.#recent];
    const kept = this.#waiting.filter(({ kind }) => {
      const at = wanted.findIndex((one) => isSame(one, kind));
      if (at >= 0) wanted.splice(at, 1);
      return at >= 0;
    });
    const superfluous = this.#waiting.filter((one) => !kept.includes(one));
    this.#waiting.splice(0, this.#waiting.length, ...kept);
    return superfluous;
  }

  async #start(kind: ContainerKind): Promise<WarmContainer> {
    const { mount, containers, mountPoint, hostsFile, uid, gid, quota } = this.#options;
    const { imageId, memoryBytes, cpus } = kind;
    const place = randomUUID();
    const { gate, files, command, env } = WAITING;
    this.#starting = place;
    try {
      await mount.createWaitingTree({ id: place, uid, gid, quota, files, gate });
      const source = join(mountPoint, place);
      const limits = { memoryBytes, cpus };
      const container = await containers
        .start({ place, image: imageId, command, env, source, hostsFile, uid, gid, ...limits })
        .catch(async (error: unknown) => {
          await mount.removeTree(place).catch(() => {});
          throw error;
        });
      const one = new WarmContainer(place, kind, container, mount);
      await reached(mount.gateReached(place), container).catch(async (error: unknown) => {
        await one[Symbol.asyncDispose]();
        throw error;
      });
      const died = () => this.#died(one);
      container.exit().then(died, died);
      return one;
    } finally {
      this.#starting = undefined;
    }
  }

  /** While it waited, or when its run is over. */
  #died(one: WarmContainer): void {
    const at = this.#waiting.indexOf(one);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    this.#options.log.warn({ place: one.place }, 'a container that waited has ended');
    // Docker stops, or somebody has removed it: the next run of the kind tries again.
    this.#recent = this.#recent.filter((kind) => !isSame(kind, one.kind));
    one[Symbol.asyncDispose]().catch(() => {});
  }
}

const isSame = (a: ContainerKind, b: ContainerKind): boolean =>
  a.imageId === b.imageId && a.memoryBytes === b.memoryBytes && a.cpus === b.cpus;

/** @throws BridgeError when it ends first, or takes too long */
async function reached(gate: Promise<void>, container: RunningContainer): Promise<void> {
  const settled = new AbortController();
  gate.catch(() => {}); // its tree goes when it has failed
  try {
    await Promise.race([
      gate,
      container.exit().then(({ code }) => {
        throw new BridgeError('unavailable', `it ended with exit code ${code} before its script`);
      }),
      sleep(REACHED_MS, undefined, { signal: settled.signal, ref: false }).then(() => {
        throw new BridgeError('timeout', `it did not come to its gate in ${REACHED_MS} ms`);
      }),
    ]);
  } finally {
    settled.abort();
  }
}

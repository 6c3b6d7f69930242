import { readFileSync } from 'node:fs';
import { BlockList } from 'node:net';
import Docker from 'dockerode';
import type { Logger } from 'pino';
import type { EgressTarget } from '#bridge/wire/egress.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { ANSWER_MS, type ContainerNetwork, engineError, statusOf, within } from './containers.js';
import { type Destination, type Resolved, Resolver } from './egress-addresses.js';
import { bridgeOf, EgressFilter } from './egress-filter.js';

/** What a network allows, so that whoever takes over knows it. */
const ALLOWED = 'cronium.egress';

export interface EgressOptions {
  readonly dockerSocket: string;
  /** As the containers': what others have made is left alone. */
  readonly instance: string;
  /** What an earlier process has begun goes on, and removes what it has made. */
  readonly takeOver?: boolean;
  readonly log: Logger;
}

/**
 * Networks of executions that may open connections: a bridge of Docker's for each, behind a filter that lets the allowed ones pass.
 * The filter is there before the bridge and goes after it, so that whatever dies in between leaves nothing open.
 */
export class Egress {
  readonly #docker: Docker;
  readonly #options: EgressOptions;
  readonly #filter: EgressFilter;
  readonly #resolver = new Resolver();
  /** Else an earlier process may have left rules without a network. */
  #isChecked: boolean;
  #turn: Promise<unknown> = Promise.resolve();

  /** Called when a network, or its rules, could not be removed. */
  onLeft: () => void = () => {};

  constructor(options: EgressOptions) {
    this.#options = options;
    this.#isChecked = options.takeOver === true;
    this.#docker = new Docker({ socketPath: options.dockerSocket });
    this.#filter = new EgressFilter(options.instance);
  }

  /** What the execution may reach; without `targets` nothing, and nothing is made. */
  forRun(executionId: string, targets: readonly EgressTarget[] | undefined): RunNetwork {
    return new RunNetwork(this, executionId, targets ?? []);
  }

  /** @throws BridgeError when this machine cannot filter, or a target cannot be allowed */
  async resolve(targets: readonly EgressTarget[]): Promise<Resolved> {
    await this.#filter.assertUsable();
    return await this.#resolver.resolve(targets);
  }

  /** In place of what an earlier process may have left. @throws BridgeError and leaves nothing */
  async open(executionId: string, { destinations, hosts }: Resolved): Promise<ContainerNetwork> {
    return await this.#inTurn(async () => {
      try {
        await this.#remove(executionId);
        await this.#filter.put(executionId, destinations);
        return { name: await this.#create(executionId, destinations), hosts };
      } catch (error) {
        await this.#remove(executionId).catch(() => this.#left());
        throw this.#sentence(error);
      }
    });
  }

  /** Idempotent, and after the container. What cannot be removed now is reaped later. */
  async close(executionId: string): Promise<void> {
    await this.#inTurn(async () => {
      await this.#remove(executionId).catch(() => this.#left());
    });
  }

  /**
   * Removes what executions have left that do not run, and puts rules back that somebody has taken from one that does. Returns how
   * many were removed. @throws BridgeError when Docker or the filter does not do it
   */
  async reap(runs: (executionId: string) => boolean): Promise<number> {
    return await this.#inTurn(async () => {
      try {
        const networks = await this.#networks([]);
        // Where nobody uses it, nobody starts a program every half minute.
        if (networks.length === 0 && this.#isChecked) return 0;
        const all = new Map((await this.#filter.executions()).map((id) => [id, '']));
        for (const { Labels } of networks)
          all.set(Labels?.['cronium.execution'] ?? '', Labels?.[ALLOWED] ?? '');
        const left = [...all.keys()].filter((id) => !runs(id));
        for (const id of left) await this.#remove(id);
        for (const [id, allowed] of all)
          if (allowed !== '' && runs(id)) await this.#repair(id, destinationsIn(allowed));
        this.#isChecked = true;
        return left.length;
      } catch (error) {
        throw this.#sentence(error);
      }
    });
  }

  async #repair(executionId: string, destinations: readonly Destination[]): Promise<void> {
    if (await this.#filter.isWhole(executionId, destinations)) return;
    await this.#filter.put(executionId, destinations);
    this.#options.log.warn(
      { execution: executionId },
      'somebody had removed rules of its packet filter: they are there again',
    );
  }

  async #create(executionId: string, destinations: readonly Destination[]): Promise<string> {
    const name = `cronium-${executionId}`;
    const bridge = bridgeOf(executionId);
    await this.#docker.createNetwork({
      Name: name,
      CheckDuplicate: true,
      Driver: 'bridge',
      EnableIPv6: false,
      Labels: {
        'cronium.managed': '1',
        'cronium.instance': this.#options.instance,
        'cronium.execution': executionId,
        [ALLOWED]: destinations.map(({ address, port }) => `${address}:${port}`).join(' '),
      },
      Options: {
        'com.docker.network.bridge.name': bridge,
        'com.docker.network.bridge.enable_icc': 'false',
      },
      abortSignal: within(ANSWER_MS),
    });
    // An engine of another machine, or of a container, has made it where our filter is not.
    if (!readFileSync('/proc/self/net/dev', 'utf8').includes(`${bridge}:`))
      throw new BridgeError(
        'unavailable',
        "--egress cannot be used: the Docker engine does not run in this machine's network, so that its containers cannot be filtered: use an engine of this machine",
      );
    for (const { IPAM } of await this.#networks([`cronium.execution=${executionId}`]))
      for (const { Subnet = '' } of IPAM?.Config ?? []) assertOutside(Subnet, destinations);
    return name;
  }

  async #networks(labels: readonly string[]): Promise<Docker.NetworkInspectInfo[]> {
    const label = [`cronium.instance=${this.#options.instance}`, ...labels];
    return await this.#docker.listNetworks({ filters: { label }, abortSignal: within(ANSWER_MS) });
  }

  async #remove(executionId: string): Promise<void> {
    for (const { Id } of await this.#networks([`cronium.execution=${executionId}`]))
      await this.#docker
        .getNetwork(Id)
        .remove({ abortSignal: within(ANSWER_MS) })
        .catch((error: unknown) => {
          if (statusOf(error) !== 404) throw this.#sentence(error);
        });
    await this.#filter.remove(executionId);
  }

  #left(): void {
    this.#isChecked = false;
    this.onLeft();
  }

  /** One after the other: a rule that is looked at is not being removed. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => {});
    return await mine;
  }

  #sentence(error: unknown): BridgeError {
    if (error instanceof Error && /available, non-overlapping|fully subnetted/.test(error.message))
      return new BridgeError(
        'unavailable',
        'Docker has no addresses for one more network: wait until other runs with --egress have ended, or give its engine more (default-address-pools in daemon.json)',
        { cause: error },
      );
    return engineError(error, this.#options.dockerSocket);
  }
}

/** What one execution may reach, from before it exists until nothing of it is left. */
export class RunNetwork implements AsyncDisposable {
  readonly #egress: Egress;
  readonly #executionId: string;
  readonly #targets: readonly EgressTarget[];
  #resolved: Resolved | undefined;

  constructor(egress: Egress, executionId: string, targets: readonly EgressTarget[]) {
    this.#egress = egress;
    this.#executionId = executionId;
    this.#targets = targets;
  }

  /** Changes nothing. @throws BridgeError when it could not be opened */
  async resolve(): Promise<void> {
    if (this.#targets.length > 0) this.#resolved = await this.#egress.resolve(this.#targets);
  }

  /** Undefined: it may reach nothing. @throws BridgeError */
  async open(): Promise<ContainerNetwork | undefined> {
    if (this.#resolved === undefined) await this.resolve();
    if (this.#resolved === undefined) return undefined;
    return await this.#egress.open(this.#executionId, this.#resolved);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#targets.length > 0) await this.#egress.close(this.#executionId);
  }
}

/** Docker takes what no route of the machine leads to, and to a host there the way is by default. */
function assertOutside(subnet: string, destinations: readonly Destination[]): void {
  const [network = '', bits = ''] = subnet.split('/');
  const range = new BlockList();
  range.addSubnet(network, Number(bits));
  const inside = destinations.find(({ address }) => range.check(address));
  if (inside !== undefined)
    throw new BridgeError(
      'conflict',
      `--egress: ${inside.address} is in the range ${subnet}, which Docker has given to the script's own network: give its engine other ranges (default-address-pools in daemon.json)`,
    );
}

function destinationsIn(label: string): Destination[] {
  return label.split(' ').map((one) => {
    const [address = '', port = ''] = one.split(':');
    return { address, port: Number(port) };
  });
}

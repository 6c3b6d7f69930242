import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { BlockList, isIPv4 } from 'node:net';
import type { EgressTarget } from '#bridge/wire/egress.js';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';

/** Where a script may connect to. */
export interface Destination {
  /** IPv4, in dots. */
  readonly address: string;
  readonly port: number;
}

/** What a list of hosts and ports means at this moment. */
export interface Resolved {
  readonly destinations: readonly Destination[];
  /** `name:address`, for /etc/hosts. */
  readonly hosts: readonly string[];
}

/** For all names of a run together: resolvers give up within 5 s (resolv.conf(5)), and one of several may be away. */
const RESOLVE_MS = 10_000;
/** A rule each. A name has a handful of addresses. */
const DESTINATIONS_MAX = 512;

/** Asked one after the other, for all runs: getaddrinfo(3) blocks one of the few threads that files are read with, too. */
export class Resolver {
  readonly #lookup: (name: string) => Promise<readonly string[]>;
  readonly #ms: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(lookup = lookupIPv4, ms = RESOLVE_MS) {
    this.#lookup = lookup;
    this.#ms = ms;
  }

  /** @throws BridgeError when a name has no IPv4 address, or one that no script may reach */
  async resolve(targets: readonly EgressTarget[]): Promise<Resolved> {
    const signal = AbortSignal.timeout(this.#ms);
    const addresses = new Map<string, readonly string[]>();
    for (const host of new Set(targets.map((target) => target.host))) {
      const found = isIPv4(host) ? [host] : await this.#addressesOf(host, signal);
      const own = ownAddresses();
      for (const address of found) assertAllowed(host, address, own);
      addresses.set(host, [...new Set(found)]);
    }
    const destinations = new Map<string, Destination>();
    for (const { host, port } of targets)
      for (const address of addresses.get(host) ?? [])
        destinations.set(`${address}:${port}`, { address, port });
    if (destinations.size > DESTINATIONS_MAX)
      throw new BridgeError(
        'invalid',
        `--egress: these names have ${destinations.size} addresses and ports together, and at most ${DESTINATIONS_MAX} can be allowed: name fewer`,
      );
    const names = [...addresses].filter(([host]) => !isIPv4(host));
    return {
      destinations: [...destinations.values()],
      hosts: names.flatMap(([host, all]) => all.map((address) => `${host}:${address}`)),
    };
  }

  async #addressesOf(name: string, signal: AbortSignal): Promise<readonly string[]> {
    const asked = this.#last.then(async () => {
      signal.throwIfAborted();
      return await this.#lookup(name);
    });
    this.#last = asked.catch(() => {});
    const late = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
    try {
      return await Promise.race([asked, late]);
    } catch (cause) {
      if (signal.aborted)
        throw new BridgeError(
          'unavailable',
          `--egress: nobody has said within ${this.#ms} ms which address ${name} has: check this machine's DNS, or give the address`,
          { cause },
        );
      throw new BridgeError(
        'not_found',
        `--egress: ${name} has no IPv4 address (${errnoCode(cause) ?? 'unknown'}): check the name and this machine's DNS, or give the address`,
        { cause },
      );
    }
  }
}

async function lookupIPv4(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true, family: 4 })).map(({ address }) => address);
}

/** IANA's registry of special addresses (RFC 6890): those that mean this machine, its link, or many machines. */
const NEVER = new BlockList();
NEVER.addSubnet('0.0.0.0', 8);
NEVER.addSubnet('127.0.0.0', 8);
NEVER.addSubnet('169.254.0.0', 16); // with it 169.254.169.254, which tells a cloud's machine its credentials
NEVER.addSubnet('224.0.0.0', 4);
NEVER.addSubnet('240.0.0.0', 4);

/** `own`: the machine's own addresses. @throws BridgeError `invalid` */
export function assertAllowed(host: string, address: string, own: ReadonlySet<string>): void {
  const what = host === address ? address : `${host} (${address})`;
  if (own.has(address))
    throw new BridgeError(
      'invalid',
      `--egress: ${what} is this machine itself, which no script can reach: run that service on another machine`,
    );
  if (NEVER.check(address))
    throw new BridgeError(
      'invalid',
      `--egress: ${what} can never be allowed (loopback, link-local, multicast or reserved): name another host`,
    );
}

/** All of them, of interfaces that are down, too; os.networkInterfaces() leaves those out. */
export function ownAddresses(): ReadonlySet<string> {
  const text = readFileSync('/proc/self/net/fib_trie', 'utf8');
  return new Set(
    [...text.matchAll(/\|-- ([\d.]+)\n\s+\/32 host LOCAL/g)].map(([, one = '']) => one),
  );
}

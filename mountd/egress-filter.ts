import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import type { Destination } from './egress-addresses.js';

/** For whoever else changes the rules at this moment (xtables.lock), in seconds. */
const LOCK_WAIT_S = 10;
/** A command changes them within milliseconds. */
const COMMAND_MS = 15_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** Not what whoever started mountd has set: the programs are in places that a user's PATH often lacks. */
const ENV = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

/** Interface names have at most 15 bytes (linux/if.h IFNAMSIZ); chains may be longer, and are called the same. */
const NAME_PREFIX = 'crn';
const NAME_DIGITS = 12;

/** The bridge of an execution's network, and the chain that filters what comes from it. */
export const bridgeOf = (executionId: string): string =>
  NAME_PREFIX + createHash('sha256').update(executionId).digest('hex').slice(0, NAME_DIGITS);

/** Where a packet of a container passes. */
interface Hook {
  readonly program: 'iptables' | 'ip6tables';
  readonly table: string;
  readonly chain: string;
}

/**
 * Everything that comes from a container passes raw PREROUTING, before any address is translated and before any rule of the table
 * filter: what other programs accept there accepts nothing of it.
 */
const FILTERED: Hook = { program: 'iptables', table: 'raw', chain: 'PREROUTING' };
/** Where rules of others that translate addresses could lead it to this machine. */
const TO_MACHINE: Hook = { program: 'iptables', table: 'mangle', chain: 'INPUT' };
const IPV6: Hook = { program: 'ip6tables', table: 'raw', chain: 'PREROUTING' };

const hasIPv6 = (): boolean => existsSync('/proc/self/net/if_inet6');
const hooks = (): Hook[] => [FILTERED, TO_MACHINE, ...(hasIPv6() ? [IPV6] : [])];

/** The packet filter's rules for the bridges of one installation's executions. Whoever calls takes care that one call ends before the next. */
export class EgressFilter {
  readonly #instance: string;

  constructor(instance: string) {
    this.#instance = instance;
  }

  /** @throws BridgeError `unavailable` when this machine cannot filter, or Docker's engine is not one of this machine */
  async assertUsable(): Promise<void> {
    try {
      await command('iptables', ['-w', `${LOCK_WAIT_S}`, '-n', '-L', 'DOCKER-USER']);
    } catch (error) {
      if (error instanceof BridgeError) throw error;
      throw new BridgeError(
        'unavailable',
        "--egress cannot be used: Docker does not set up this machine's packet filter (no chain DOCKER-USER): start its engine without --iptables=false, or run the script without --egress",
        { cause: error },
      );
    }
  }

  /** In one step for each table, in place of whatever there was: there is no moment with half of them. */
  async put(executionId: string, destinations: readonly Destination[]): Promise<void> {
    const bridge = bridgeOf(executionId);
    for (const hook of hooks()) {
      const rules = [...removal(await rulesIn(hook), hook, bridge, this.#mark(executionId))];
      if (hook === FILTERED)
        rules.push(
          `:${bridge} - [0:0]`,
          `-A ${bridge} -m addrtype --dst-type LOCAL -j DROP`,
          ...destinations.map(
            ({ address, port }) => `-A ${bridge} -d ${address}/32 -p tcp --dport ${port} -j RETURN`,
          ),
          `-A ${bridge} -j DROP`,
        );
      rules.push(`-I ${hook.chain} 1 ${this.#jump(hook, executionId)}`);
      await restore(hook, rules);
    }
  }

  /** Idempotent; what can be removed is, even if not all can. @throws BridgeError */
  async remove(executionId: string): Promise<void> {
    const bridge = bridgeOf(executionId);
    const removing = hooks().map(async (hook) => {
      const rules = removal(await rulesIn(hook), hook, bridge, this.#mark(executionId));
      if (rules.length > 0) await restore(hook, rules);
    });
    for (const one of await Promise.allSettled(removing))
      if (one.status === 'rejected') throw one.reason;
  }

  /** Whether nobody has taken any of an execution's rules away. */
  async isWhole(executionId: string, destinations: readonly Destination[]): Promise<boolean> {
    const bridge = bridgeOf(executionId);
    for (const hook of hooks()) {
      const rules = await rulesIn(hook);
      const jumps = rules.filter((rule) => marked(rule) === this.#mark(executionId));
      if (jumps.length !== 1) return false;
      const own = rules.filter((rule) => rule.startsWith(`-A ${bridge} `));
      if (hook === FILTERED && own.length !== destinations.length + 2) return false;
    }
    return true;
  }

  /** Executions of this installation that have any rules. */
  async executions(): Promise<string[]> {
    const found = new Set<string>();
    // A table that cannot be read, as one that this kernel does not have, holds none of ours.
    for (const hook of hooks())
      for (const rule of await rulesIn(hook).catch(() => [])) {
        const [, instance, executionId] = marked(rule)?.split(':') ?? [];
        if (instance === this.#instance && executionId !== undefined) found.add(executionId);
      }
    return [...found];
  }

  #mark(executionId: string): string {
    return `cronium:${this.#instance}:${executionId}`;
  }

  #jump(hook: Hook, executionId: string): string {
    const bridge = bridgeOf(executionId);
    const target = hook === FILTERED ? bridge : 'DROP';
    return `-i ${bridge} -m comment --comment ${this.#mark(executionId)} -j ${target}`;
  }
}

/** A rule's comment. */
const marked = (rule: string): string | undefined =>
  /--comment "?(cronium:[^\s"]+)/.exec(rule)?.[1];

/** What removes those of `rules` that carry the mark, and the chain. */
function removal(
  rules: readonly string[],
  { chain }: Hook,
  bridge: string,
  mark: string,
): string[] {
  return [
    ...rules
      .filter((rule) => rule.startsWith(`-A ${chain} `) && marked(rule) === mark)
      .map((rule) => rule.replace('-A', '-D')),
    ...(rules.includes(`-N ${bridge}`) ? [`-F ${bridge}`, `-X ${bridge}`] : []),
  ];
}

/** Of a table, as iptables -S prints them; none without the program. */
async function rulesIn({ program, table }: Hook): Promise<string[]> {
  try {
    const text = await command(program, ['-w', `${LOCK_WAIT_S}`, '-t', table, '-S']);
    return text.split('\n');
  } catch (error) {
    if (error instanceof BridgeError) return [];
    throw sentence(program, error);
  }
}

async function restore({ program, table }: Hook, rules: readonly string[]): Promise<void> {
  const restoring = `${program}-restore`;
  try {
    const text = [`*${table}`, ...rules, 'COMMIT', ''].join('\n');
    await command(restoring, ['--noflush', '-w', `${LOCK_WAIT_S}`], text);
  } catch (error) {
    throw sentence(restoring, error);
  }
}

/** @throws BridgeError when there is no such program, and what execFile throws */
async function command(program: string, args: readonly string[], input = ''): Promise<string> {
  const running = promisify(execFile)(program, args, {
    env: ENV,
    timeout: COMMAND_MS,
    maxBuffer: OUTPUT_BYTES_MAX,
  });
  running.child.stdin?.on('error', () => {}); // it ends without reading all; its exit code tells
  running.child.stdin?.end(input);
  try {
    return (await running).stdout;
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
    throw new BridgeError(
      'unavailable',
      `--egress cannot be used: there is no program ${program} on this machine; install it: apt-get install iptables`,
      { cause: error },
    );
  }
}

function sentence(program: string, error: unknown): BridgeError {
  if (error instanceof BridgeError) return error;
  const { stderr } = error as { stderr?: string };
  const [said = ''] = (stderr ?? '').trim().split('\n');
  const reason = said !== '' ? said : error instanceof Error ? error.message : String(error);
  return new BridgeError(
    'unavailable',
    `--egress cannot be used: ${program} failed (${reason}): run cronium doctor, or run the script without --egress`,
    { cause: error },
  );
}

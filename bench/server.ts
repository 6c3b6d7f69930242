// `npm run bench -- server`: our server beside the usual HTTP design, Redis, PostgreSQL and etcd, in one run. Every cell (get or
// set, so many calls outstanding) is measured on all of them before the next one, in an order that rotates; ratios are taken
// within a round. docs/benchmarks-server.md says what is compared and how fair that is.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { GeneratorProcess, Interrupted, stopOnSignal } from './lib/generator-process.js';
import { ACTIONS, type Action, type Cell, type Measured } from './lib/load-generator.js';
import { memoryOf } from './lib/process-cost.js';
import { CannotRun, machine, say } from './lib/running.js';
import { runLoad } from './lib/server-load.js';
import { PEER_NAMES, type Peer, type PeerName, ServerPeers } from './lib/server-peers.js';
import { cellTables, goals, memoryTable, type Row } from './lib/server-report.js';

const OUTSTANDING = [1, 64, 512];
/** Of a cell's time, before it: connections open, code compiles, and the last cell's writes settle. */
const WARM_SHARE = 0.25;

const USAGE = `usage: npm run bench -- server [--rounds N] [--seconds S] [--peers a,b] [--actions get,set] [--outstanding 1,64]
                               [--load] [--rate N] [--json FILE]
  S: of one cell (default 2); peers: ${PEER_NAMES.join(', ')}
  --load: instead of the comparison, our server with 1000 executions, and a quiet tenant beside a flooding one;
          N: operations a second of all executions together (default 1000)`;

interface Options {
  readonly rounds: number;
  readonly seconds: number;
  readonly peers: readonly PeerName[];
  readonly actions: readonly Action[];
  readonly outstanding: readonly number[];
  readonly load: boolean;
  readonly rate: number;
  readonly json: string;
}

type Generator = GeneratorProcess<Cell, Measured>;

interface Ready extends Peer {
  readonly generator: Generator;
}

/** @throws CannotRun */
function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '2' },
      peers: { type: 'string', default: PEER_NAMES.join() },
      actions: { type: 'string', default: ACTIONS.join() },
      outstanding: { type: 'string', default: OUTSTANDING.join() },
      load: { type: 'boolean', default: false },
      rate: { type: 'string', default: '1000' },
      json: { type: 'string' },
    },
  });
  const positive = (name: string, text: string) => {
    const number = Number(text);
    if (!(number > 0)) throw new CannotRun(`--${name} ${text}: not a positive number`);
    return number;
  };
  const of = <T extends string>(name: string, text: string, known: readonly T[]) =>
    text.split(',').map((word) => {
      const found = known.find((each) => each === word);
      if (found === undefined)
        throw new CannotRun(`--${name}: no ${word}; know ${known.join(', ')}`);
      return found;
    });
  const stamp = new Date().toISOString().replaceAll(':', '').replace(/\..*/, 'Z');
  const kind = values.load ? 'server-load' : 'server';
  return {
    rounds: Math.ceil(positive('rounds', values.rounds)),
    seconds: positive('seconds', values.seconds),
    peers: of('peers', values.peers, PEER_NAMES),
    actions: of('actions', values.actions, ACTIONS),
    outstanding: values.outstanding.split(',').map((n) => Math.ceil(positive('outstanding', n))),
    load: values.load,
    rate: positive('rate', values.rate),
    json: values.json ?? `bench/results/${kind}-${stamp}.json`,
  };
}

/** Starts a load generator for every peer; those that cannot be reached are reported and left out. */
async function connectAll(peers: ServerPeers): Promise<Ready[]> {
  const ready: Ready[] = [];
  for (const peer of peers.peers)
    try {
      const generator: Generator = await GeneratorProcess.start('load.js', peer.target);
      ready.push({ ...peer, generator });
    } catch (error) {
      peers.missing[peer.name] = String(error);
    }
  return ready;
}

/** All rounds of all cells; a peer that fails is reported, and left out of what comes after. */
async function compare(
  options: Options,
  peers: readonly Ready[],
  fail: (peer: Ready, why: string) => void,
): Promise<Row[]> {
  const { rounds, seconds } = options;
  const rows: Row[] = options.actions.flatMap((action) =>
    options.outstanding.map((outstanding) => ({ action, outstanding, measured: new Map() })),
  );
  const failed = new Set<PeerName>();
  // Round 0 warms up and does not count.
  for (let round = 0; round <= rounds; round++)
    for (const { action, outstanding, measured } of rows) {
      say(`round ${round} of ${rounds}: ${action}, ${outstanding} outstanding`);
      for (let k = 0; k < peers.length; k++) {
        const peer = peers[(round + k) % peers.length];
        if (peer === undefined || failed.has(peer.name)) continue;
        // An echo stores nothing.
        if (action === 'set' && peer.target.kind === 'echo') continue;
        const ms = seconds * 1000 * (round === 0 ? WARM_SHARE : 1);
        const warmMs = seconds * 1000 * WARM_SHARE;
        try {
          const cell = { action, outstanding, warmMs, ms, serverPid: peer.server.pid };
          const result = await peer.generator.ask(cell);
          const all = measured.get(peer.name) ?? [];
          if (round > 0) measured.set(peer.name, [...all, result]);
        } catch (error) {
          if (error instanceof Interrupted) throw error;
          failed.add(peer.name);
          fail(peer, `${action}, ${outstanding} outstanding: ${String(error)}`);
        }
      }
    }
  return rows;
}

async function comparison(options: Options, directory: string, before: readonly number[]) {
  await using peers = await ServerPeers.start(directory, options.peers);
  const ready = await connectAll(peers);
  try {
    for (const [name, why] of Object.entries(peers.missing)) say(`${name} is missing: ${why}`);
    if (ready.length === 0) throw new CannotRun('there is nothing to measure');
    const rows = await compare(options, ready, (peer, why) => {
      peers.missing[peer.name] = why;
      say(`${peer.name} failed, and is left out from here: ${why}`);
    });
    const memory = new Map(ready.map(({ name, server }) => [name, memoryOf(server.pid)] as const));
    const missing = Object.entries(peers.missing).map(([name, why]) => `${name}: ${why}`);
    const about = machine(before);
    const text = [
      `${options.rounds} rounds of ${options.seconds} s a cell. ${about.text}`,
      cellTables(rows),
      memoryTable(memory),
      goals(rows),
      missing.length === 0 ? 'No peer is missing.' : `Missing:\n${missing.join('\n')}`,
    ].join('\n\n');
    const json = {
      ...about.facts,
      options,
      missing: peers.missing,
      memory: Object.fromEntries(memory),
      rows: rows.map((row) => ({ ...row, measured: Object.fromEntries(row.measured) })),
    };
    return { text, json };
  } finally {
    for (const { generator } of ready) await generator[Symbol.asyncDispose]();
  }
}

async function main(): Promise<number> {
  let options: Options;
  try {
    options = optionsOf(process.argv.slice(2));
  } catch (error) {
    say(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  const before = loadavg();
  stopOnSignal();
  const directory = mkdtempSync(join(tmpdir(), 'cronium-bench-'));
  chmodSync(directory, 0o711); // PostgreSQL runs as a user of its own, and has to get through
  try {
    const run = options.load ? runLoad : comparison;
    const { text, json } = await run(options, directory, before);
    process.stdout.write(`${text}\n`);
    mkdirSync(dirname(options.json), { recursive: true });
    writeFileSync(options.json, `${JSON.stringify(json, null, 2)}\n`);
    say(`every round's figures are in ${options.json}`);
    return 0;
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    say(error.message);
    return 1;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

process.exitCode = await main();

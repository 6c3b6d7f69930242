import t from 'tap';
import type { Namespace } from '#bridge/wire/names.js';
import { namespaceText } from '#bridge/wire/names.js';
import { Peer, serveTable } from '#bridge/wire/peer.js';
import { QUOTA_OPERATIONS, type QuotaOperations } from '#bridge/wire/protocol/quotas.js';
import { dispatch } from '#server/cli/command.js';
import { quotaCommands } from '#server/cli/quota-commands.js';
import { QUOTA_DEFAULTS, Quotas } from '#server/services/quotas.js';
import { quotaHandlers } from '#server/session/quota-handlers.js';
import { MemoryStore } from '#server/store/memory-store.js';

/** The real commands, frames, handlers and service; between them two arrays instead of a network. */
class Terminal {
  readonly quotas: Quotas;
  readonly asked: string[] = [];

  private constructor(quotas: Quotas) {
    this.quotas = quotas;
  }

  static async open(): Promise<Terminal> {
    return new Terminal(await Quotas.open(new MemoryStore()));
  }

  async run(line: string): Promise<{ code: number; out: string; err: string }> {
    let [out, err] = ['', ''];
    const code = await dispatch(
      quotaCommands(async () => await this.#connect()),
      line.split(' '),
      {
        out: (text) => {
          out += text;
        },
        err: (text) => {
          err += `${text}\n`;
        },
        stdin: async () => await Promise.resolve(Buffer.alloc(0)),
        env: {},
        signal: new AbortController().signal,
      },
    );
    return { code, out, err };
  }

  async #connect() {
    const usageOf = async (namespace: Namespace) => {
      this.asked.push(namespaceText(namespace));
      return await Promise.resolve({ variables: 7, bytes: 900, executions: 1, connections: 2 });
    };
    const serve = serveTable(quotaHandlers({ quotas: this.quotas, usageOf }));
    const server: Peer<Record<never, never>, QuotaOperations> = new Peer(
      (bytes) => client.receive(bytes),
      {},
      QUOTA_OPERATIONS,
      serve,
    );
    const client: Peer<QuotaOperations, Record<never, never>> = new Peer(
      (bytes) => server.receive(bytes),
      QUOTA_OPERATIONS,
      {},
    );
    return await Promise.resolve({
      call: client.call.bind(client) as typeof client.call,
      [Symbol.dispose]: () => {},
    });
  }
}

void t.test('an operator sees what is used, sets limits, and takes them back', async (t) => {
  const terminal = await Terminal.open();
  t.same(await terminal.run('quota show --user ada'), {
    code: 0,
    out: [
      `variables    7 of ${QUOTA_DEFAULTS.variables}`,
      `bytes        900 of ${QUOTA_DEFAULTS.bytes}`,
      `executions   1 of ${QUOTA_DEFAULTS.executions}`,
      `connections  2 of ${QUOTA_DEFAULTS.connections}`,
      '',
    ].join('\n'),
    err: '',
  });
  t.match(await terminal.run('quota set --user ada --variables 500 --bytes 10m'), {
    code: 0,
    out: '',
    err: /^user:ada may have 500 variables, 10485760 bytes, 2000 executions, 4000 connections\n$/,
  });
  t.match((await terminal.run('quota show --user ada')).out, /^variables {4}7 of 500 \(set\)$/m);
  t.same(await terminal.run('quota list'), {
    code: 0,
    out: `default  100000 variables, 25165824 bytes, 2000 executions, 4000 connections\nuser:ada  500 variables, 10485760 bytes\n`,
    err: '',
  });
  t.equal((await terminal.run('quota set --user ada --default')).code, 0);
  t.same(terminal.quotas.list(), []);
});

void t.test('every quota command has an answer for programs', async (t) => {
  const terminal = await Terminal.open();
  const json = async (line: string): Promise<unknown> =>
    JSON.parse((await terminal.run(`${line} --json`)).out);
  t.same(await json('quota set --org acme --executions 0'), {
    namespace: 'org:acme',
    limits: { ...QUOTA_DEFAULTS, executions: 0 },
  });
  t.same(await json('quota show --org acme'), {
    namespace: 'org:acme',
    limits: { ...QUOTA_DEFAULTS, executions: 0 },
    overrides: { executions: 0 },
    usage: { variables: 7, bytes: 900, executions: 1, connections: 2 },
  });
  t.same(await json('quota list'), {
    defaults: QUOTA_DEFAULTS,
    namespaces: [{ namespace: 'org:acme', overrides: { executions: 0 } }],
  });
  t.same(terminal.asked, ['org:acme']);
});

void t.test('a mistake in the command line is told before anything is set', async (t) => {
  const terminal = await Terminal.open();
  const mistakes: [string, RegExp][] = [
    ['quota set --user ada', /set which limit\? --variables, --bytes/],
    ['quota set --user ada --default --bytes 1m', /exclude each other/],
    ['quota set --user ada --bytes 25m', /at most 25165824 are possible/],
    ['quota set --user ada --variables 1.5', /--variables 1.5: write a whole number/],
    ['quota set --user ada --executions -1', /ambiguous|whole number/],
    ['quota set --user ada --org acme --bytes 1m', /exclude each other/],
    ['quota show ada', /what is "ada"/],
  ];
  for (const [line, said] of mistakes)
    t.match(await terminal.run(line), { code: 2, out: '', err: said }, line);
  t.same(terminal.quotas.list(), []);
});

import { namespaceText } from '#bridge/wire/names.js';
import {
  QUOTA_CEILINGS,
  QUOTA_KINDS,
  type QuotaKind,
  type QuotaOperations,
  type QuotaOverrides,
} from '#bridge/wire/protocol/quotas.js';
import type { Params, Result } from '#bridge/wire/protocol.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, type Command, command, type Io, Misuse } from './command.js';
import { bytes, namespaceOf } from './values.js';

/** A connection as far as these commands use it. */
export interface QuotaConnection extends Disposable {
  call<O extends keyof QuotaOperations>(
    op: O,
    params: Params<QuotaOperations, O>,
  ): Promise<Result<QuotaOperations, O>>;
}

export type ConnectQuotas = (state: string | undefined, io: Io) => Promise<QuotaConnection>;

const OPTIONS = { ...COMMON, user: { type: 'string' }, org: { type: 'string' } } as const;
const OWNERS = '  --user ID, --org ID  whose quotas (default: user "default")';

/** `connect` is the server of this installation, except in a test. */
export const quotaCommands = (connect: ConnectQuotas): readonly Command[] => [
  command({
    name: 'quota show',
    summary: 'Show what a user or an organisation may have, and has',
    usage: 'cronium quota show [--user ID | --org ID] [--json]',
    help: [OWNERS, '', 'example: cronium quota show --user ada'].join('\n'),
    options: OPTIONS,
    async run({ positionals, values }, io) {
      atMost(positionals, 0);
      const namespace = namespaceOf(values);
      using server = await connect(values.state, io);
      const { limits, overrides, usage } = await server.call('quota.get', { namespace });
      if (values.json)
        io.out(
          `${JSON.stringify({ namespace: namespaceText(namespace), limits, overrides, usage })}\n`,
        );
      else
        for (const kind of QUOTA_KINDS)
          io.out(
            `${kind.padEnd(12)} ${usage[kind]} of ${limits[kind]}${overrides[kind] === undefined ? '' : ' (set)'}\n`,
          );
      return 0;
    },
  }),

  command({
    name: 'quota set',
    summary: 'Say what a user or an organisation may have',
    usage: [
      'cronium quota set [--user ID | --org ID] [--variables N] [--bytes SIZE] [--executions N] [--connections N] [--json]',
      '       cronium quota set [--user ID | --org ID] --default [--json]',
    ].join('\n'),
    help: [
      OWNERS,
      `  --variables N        variables (at most ${QUOTA_CEILINGS.variables})`,
      `  --bytes SIZE         their names and values with 100 bytes each, as 500k or 10m (at most 24m: an execution is`,
      '                       given all of them in one message)',
      '  --executions N       executions that run at once',
      '  --connections N      channels of executions that are open at once',
      '  --default            as everybody else, in everything',
      '',
      'It counts at once. 0 lets nothing more happen. What is there already stays, even over a limit that was lowered.',
      '',
      'example: cronium quota set --user ada --variables 500 --bytes 10m',
    ].join('\n'),
    options: {
      ...OPTIONS,
      variables: { type: 'string' },
      bytes: { type: 'string' },
      executions: { type: 'string' },
      connections: { type: 'string' },
      default: { type: 'boolean', default: false },
    },
    async run({ positionals, values }, io) {
      atMost(positionals, 0);
      const namespace = namespaceOf(values);
      const wanted: QuotaOverrides = {};
      for (const kind of QUOTA_KINDS) {
        const text = values[kind];
        if (text !== undefined) wanted[kind] = limitArgument(kind, text);
      }
      const isEmpty = Object.keys(wanted).length === 0;
      if (values.default && !isEmpty)
        throw new Misuse('--default and single limits exclude each other');
      if (!values.default && isEmpty)
        throw new Misuse(
          `set which limit? ${QUOTA_KINDS.map((kind) => `--${kind}`).join(', ')} or --default`,
        );
      using server = await connect(values.state, io);
      const overrides = values.default ? null : wanted;
      const { limits } = await server.call('quota.set', { namespace, overrides });
      if (values.json)
        io.out(`${JSON.stringify({ namespace: namespaceText(namespace), limits })}\n`);
      else io.err(`${namespaceText(namespace)} may have ${inWords(limits)}`);
      return 0;
    },
  }),

  command({
    name: 'quota list',
    summary: 'List who has quotas of their own, and the default',
    usage: 'cronium quota list [--json]',
    help: 'example: cronium quota list',
    options: COMMON,
    async run({ positionals, values }, io) {
      atMost(positionals, 0);
      using server = await connect(values.state, io);
      const { defaults, namespaces } = await server.call('quota.list', {});
      if (values.json) {
        const named = namespaces.map(({ namespace, overrides }) => ({
          namespace: namespaceText(namespace),
          overrides,
        }));
        io.out(`${JSON.stringify({ defaults, namespaces: named })}\n`);
      } else {
        io.out(`default  ${inWords(defaults)}\n`);
        for (const { namespace, overrides } of namespaces)
          io.out(`${namespaceText(namespace)}  ${inWords(overrides)}\n`);
      }
      return 0;
    },
  }),
];

export const QUOTA_COMMANDS = quotaCommands(
  async (state, io) => await new Installation(State.of(state, io.env)).operator(),
);

function limitArgument(kind: QuotaKind, text: string): number {
  const option = `--${kind}`;
  const isCount = /^\d{1,15}$/.test(text);
  if (kind !== 'bytes' && !isCount) throw new Misuse(`${option} ${text}: write a whole number`);
  const limit = isCount ? Number(text) : bytes(text, option);
  const most = QUOTA_CEILINGS[kind];
  if (limit > most) throw new Misuse(`${option} ${text}: at most ${most} are possible`);
  return limit;
}

const inWords = (limits: QuotaOverrides): string =>
  QUOTA_KINDS.filter((kind) => limits[kind] !== undefined)
    .map((kind) => `${limits[kind]} ${kind}`)
    .join(', ');

import { renderMembers, scanMembers } from '#bridge/wire/json-source.js';
import { KEY_BYTES_MAX } from '#bridge/wire/limits.js';
import { MERGE_POLICIES } from '#bridge/wire/merge-policy.js';
import { type Namespace, namespaceText, type VariableKey } from '#bridge/wire/names.js';
import { SHARED, type Share } from '#bridge/wire/protocol/variables.js';
import { atMost, type Command, command, Misuse } from './command.js';
import { jsonArgument, namespaceOf, oneOf, owner } from './values.js';
import {
  checkedKey,
  connect,
  HIDDEN,
  isoTime,
  keyArgument,
  OPTIONS,
  OWNERS,
  REVEAL,
  versionArgument,
} from './variable-values.js';

const variableHistory = command({
  name: 'var history',
  summary: 'Show earlier values of a variable, the newest first',
  usage: 'cronium var history KEY [--reveal] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '  --reveal             the values of a secret variable, too, and those of a deleted one, which may have been secret',
    '',
    'The last ten are kept, without those that stood for less than a second.',
    '',
    'example: cronium var history city --user ada',
  ].join('\n'),
  options: { ...OPTIONS, ...REVEAL },
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 1);
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const { entries } = await server.call('variable.history', {
      namespace,
      key,
      reveal: values.reveal,
    });
    if (values.json) {
      const rows = entries.map(
        ({ version, text, updatedAt, by }) =>
          `{"version":${version},${text === null ? '' : `"value":${text},`}"updatedAt":${JSON.stringify(isoTime(updatedAt))},"by":${JSON.stringify(by)}}`,
      );
      io.out(`[${rows.join(',')}]\n`);
      return 0;
    }
    if (entries.length === 0) io.err(`no earlier value of ${key} is kept`);
    for (const { version, text, updatedAt, by } of entries)
      io.out(`${version}  ${isoTime(updatedAt)}  ${by}  ${text ?? HIDDEN}\n`);
    return 0;
  },
});

const variableRestore = command({
  name: 'var restore',
  summary: 'Make an earlier value of a variable the present one',
  usage: 'cronium var restore KEY VERSION [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '',
    'VERSION is one that `cronium var history KEY` shows. The value that is replaced becomes history.',
    '',
    'example: cronium var restore city 17 --user ada',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 2);
    const [, wanted] = positionals;
    if (wanted === undefined)
      throw new Misuse(`which version of ${key}? see: cronium var history ${key}`);
    const earlier = versionArgument(wanted, 'VERSION');
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const { version } = await server.call('variable.restore', { namespace, key, version: earlier });
    if (values.json) io.out(`${JSON.stringify({ key, restored: earlier, version })}\n`);
    return 0;
  },
});

const variableImport = command({
  name: 'var import',
  summary: 'Set every member of a JSON object as a variable',
  usage: 'cronium var import JSON|@FILE|- [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '',
    'All in one commit. Variables that the object does not name stay as they are.',
    '',
    'example: cronium var import @variables.json --user ada',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [argument] = positionals;
    if (argument === undefined) throw new Misuse('import what? give a JSON object, @FILE or -');
    const members = scanMembers(await jsonArgument(argument, 'the import', io));
    if (members === undefined) throw new Misuse('the import is not a JSON object');
    const set = [...members].map(([key, text]): [VariableKey, string] => [checkedKey(key), text]);
    using server = await connect(values.state, io);
    const { version } = await server.call('variable.edit', {
      namespace: namespaceOf(values),
      set,
      delete: [],
    });
    if (values.json) io.out(`${JSON.stringify({ imported: set.length, version })}\n`);
    else io.err(`imported ${set.length} variables`);
    return 0;
  },
});

const variableExport = command({
  name: 'var export',
  summary: 'Print all variables as one JSON object',
  usage: 'cronium var export [--user ID | --org ID]',
  help: [
    OWNERS,
    '',
    'The object is what a script finds in variables.json; `var import` takes it back.',
    '',
    'example: cronium var export --user ada > backup.json',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    using server = await connect(values.state, io);
    const { variables } = await server.call('variable.list', { namespace: namespaceOf(values) });
    const shown = variables.flatMap(({ key, text }) =>
      text === null ? [] : [[key, text] as const],
    );
    if (shown.length < variables.length)
      io.err(
        `left out: ${variables.length - shown.length} secret variables; a whole copy makes: cronium store backup`,
      );
    io.out(`${renderMembers(shown)}\n`);
    return 0;
  },
});

const variablePolicy = command({
  name: 'var policy',
  summary: 'Say how changes of a variable by several scripts at once are merged',
  usage: 'cronium var policy [KEY [last|add|max|min|union|append]] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '',
    'A script reads a variable, changes it and writes it back. What is stored is then, by policy:',
    '  last    what was written last (default)',
    '  add     the stored number plus what the script added to the one it had read',
    '  max, min  the larger or smaller of the stored number and the written one',
    '  union   the stored array with the elements the script added, without those it removed',
    '  append  the stored array or string with what the script put at the end',
    '',
    'Without a policy the one of KEY is printed; without KEY, all that are not "last". A write that does not fit the policy',
    'is refused (EINVAL). `cronium var set` is not merged: it sets.',
    '',
    'example: cronium var policy visits add --user ada',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    atMost(positionals, 2);
    const [, wanted] = positionals;
    const key = positionals.length === 0 ? undefined : keyArgument(positionals, 2);
    const policy = wanted === undefined ? undefined : oneOf(wanted, MERGE_POLICIES, 'the policy');
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    if (key !== undefined && policy !== undefined) {
      await server.call('policy.set', { namespace, key, policy });
      if (values.json) io.out(`${JSON.stringify({ key, policy })}\n`);
      return 0;
    }
    const { policies } = await server.call('policy.list', { namespace });
    if (key !== undefined) {
      const found = policies.find(([name]) => name === key)?.[1] ?? 'last';
      io.out(values.json ? `${JSON.stringify({ key, policy: found })}\n` : `${found}\n`);
      return 0;
    }
    if (values.json) io.out(`${JSON.stringify(Object.fromEntries(policies))}\n`);
    else for (const [name, found] of policies) io.out(`${name} ${found}\n`);
    return 0;
  },
});

const variableShare = command({
  name: 'var share',
  summary: 'Let executions of another user or organisation use variables, or list who may',
  usage: [
    'cronium var share PREFIX|all --with-user ID|--with-org ID --access r|rw [--user ID | --org ID] [--json]',
    'cronium var share PREFIX|all --with-user ID|--with-org ID --remove [--user ID | --org ID] [--json]',
    'cronium var share [--user ID | --org ID] [--json]',
  ].join('\n'),
  help: [
    OWNERS,
    '  PREFIX               keys that begin so; all: every key (write all* for keys that begin with "all")',
    '  --with-user ID, --with-org ID  whose executions may use them',
    '  --access r|rw        read, or also write; it replaces what was said of the same PREFIX before',
    '  --remove             no more',
    '',
    "A shared variable does not stand in the other's variables.json: its executions ask for it by namespace.",
    '',
    'example: cronium var share db_ --org acme --with-user ada --access r',
  ].join('\n'),
  options: {
    ...OPTIONS,
    'with-user': { type: 'string' },
    'with-org': { type: 'string' },
    access: { type: 'string' },
    remove: { type: 'boolean', default: false },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [keys] = positionals;
    const { access, remove } = values;
    const namespace = namespaceOf(values);
    const other = otherOf(values);
    if (keys === undefined) {
      if (other !== undefined || access !== undefined || remove)
        throw new Misuse('share which keys? give their PREFIX, or all');
      using server = await connect(values.state, io);
      const { shares } = await server.call('share.list', { namespace });
      if (values.json) io.out(`${JSON.stringify(shares.map(shareJson))}\n`);
      else if (shares.length === 0) io.err(`${namespaceText(namespace)} shares nothing`);
      else
        for (const { prefix, with: to, access: how } of shares)
          io.out(`${prefix === '' ? 'all' : `${prefix}*`}  ${namespaceText(to)}  ${how}\n`);
      return 0;
    }
    const prefix = prefixOf(keys);
    if (other === undefined)
      throw new Misuse('share with whom? say --with-user ID or --with-org ID');
    if (remove) {
      if (access !== undefined) throw new Misuse('--access and --remove exclude each other');
      using server = await connect(values.state, io);
      await server.call('share.remove', { namespace, with: other, prefix });
      if (values.json)
        io.out(`${JSON.stringify({ prefix, with: namespaceText(other), removed: true })}\n`);
      return 0;
    }
    if (access === undefined)
      throw new Misuse('share how? say --access r or --access rw; to end it: --remove');
    const share: Share = { with: other, prefix, access: oneOf(access, SHARED, '--access') };
    using server = await connect(values.state, io);
    await server.call('share.set', { namespace, share });
    if (values.json) io.out(`${JSON.stringify(shareJson(share))}\n`);
    return 0;
  },
});

function otherOf(values: {
  'with-user'?: string | undefined;
  'with-org'?: string | undefined;
}): Namespace | undefined {
  const { 'with-user': user, 'with-org': org } = values;
  if (user !== undefined && org !== undefined)
    throw new Misuse('--with-user and --with-org exclude each other: share twice');
  if (user !== undefined) return { user: owner(user, '--with-user') };
  return org === undefined ? undefined : { org: owner(org, '--with-org') };
}

function prefixOf(keys: string): string {
  const prefix = keys === 'all' ? '' : keys.replace(/\*$/, '');
  if (Buffer.byteLength(prefix) <= KEY_BYTES_MAX) return prefix;
  throw new Misuse(`a key, and so its beginning, has at most ${KEY_BYTES_MAX} bytes`);
}

const shareJson = ({ prefix, with: other, access }: Share) => ({
  prefix,
  with: namespaceText(other),
  access,
});

/** Earlier values, many variables at once, and how they are merged and shared. */
export const MORE_VARIABLE_COMMANDS: readonly Command[] = [
  variableHistory,
  variableRestore,
  variableImport,
  variableExport,
  variablePolicy,
  variableShare,
];

import type { Connection } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { isJson, renderMembers, scanMembers } from '#bridge/wire/json-source.js';
import { MERGE_POLICIES } from '#bridge/wire/merge-policy.js';
import { VariableKey } from '#bridge/wire/names.js';
import type { VariableChange } from '#bridge/wire/protocol.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, command, type Io, Misuse } from './command.js';
import { jsonArgument, namespaceOf, oneOf, textArgument } from './values.js';

const OPTIONS = { ...COMMON, user: { type: 'string' }, org: { type: 'string' } } as const;
const OWNERS = '  --user ID, --org ID  whose variables (default: user "default")';

export const variableGet = command({
  name: 'var get',
  summary: 'Print a variable',
  usage: 'cronium var get KEY [--reveal] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '  --reveal             print it although it is secret',
    '  --json               the variable with its version and time; without it a string prints as its text',
    '',
    'example: cronium var get city --user ada',
  ].join('\n'),
  options: { ...OPTIONS, reveal: { type: 'boolean', default: false } },
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 1);
    using server = await connect(values.state, io);
    const variable = await server.call('variable.get', {
      namespace: namespaceOf(values),
      key,
      reveal: values.reveal,
    });
    if (variable.text === null && !values.json)
      throw new BridgeError(
        'denied',
        `${key} is secret; to see it: cronium var get ${key} --reveal`,
      );
    io.out(values.json ? `${variableJson(variable)}\n` : `${plain(variable.text ?? '')}\n`);
    return 0;
  },
});

export const variableSet = command({
  name: 'var set',
  summary: 'Set a variable',
  usage: 'cronium var set KEY VALUE|@FILE|- [--string] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '  --string             take VALUE as text even where it is valid JSON: 5 is then "5"',
    '',
    'VALUE is JSON where it is valid JSON, and text where it is not.',
    '',
    'example: cronium var set limits \'{"cpu": 2}\' --user ada',
  ].join('\n'),
  options: { ...OPTIONS, string: { type: 'boolean', default: false } },
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 2);
    const [, argument] = positionals;
    if (argument === undefined) throw new Misuse(`set ${key} to what? give a value, @FILE or -`);
    const given = await textArgument(argument, 'VALUE', io);
    const text = values.string || !isJson(given) ? JSON.stringify(given) : given.trim();
    using server = await connect(values.state, io);
    const { version } = await server.call('variable.edit', {
      namespace: namespaceOf(values),
      set: [[key, text]],
      delete: [],
    });
    if (values.json) io.out(`${JSON.stringify({ key, version })}\n`);
    return 0;
  },
});

export const variableDelete = command({
  name: 'var delete',
  summary: 'Delete variables',
  usage: 'cronium var delete KEY... [--user ID | --org ID] [--json]',
  help: [OWNERS, '', 'example: cronium var delete OLD_KEY --org acme'].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    if (positionals.length === 0) throw new Misuse('delete which variable? see: cronium var list');
    const keys = positionals.map(checkedKey);
    using server = await connect(values.state, io);
    const { changes } = await server.call('variable.edit', {
      namespace: namespaceOf(values),
      set: [],
      delete: keys,
    });
    const deleted = new Set<string>(changes.map(({ key }) => key));
    const missing = keys.filter((key) => !deleted.has(key));
    if (values.json) io.out(`${JSON.stringify({ deleted: [...deleted], missing })}\n`);
    for (const key of missing)
      io.err(`there was no variable ${JSON.stringify(key)}; see: cronium var list`);
    return missing.length === 0 ? 0 : 1;
  },
});

export const variableList = command({
  name: 'var list',
  summary: 'List variables with their values',
  usage: 'cronium var list [--user ID | --org ID] [--json]',
  help: [OWNERS, '', 'example: cronium var list --user ada'].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    using server = await connect(values.state, io);
    const { variables } = await server.call('variable.list', { namespace: namespaceOf(values) });
    if (values.json) io.out(`[${variables.map(variableJson).join(',')}]\n`);
    else for (const { key, text } of variables) io.out(`${key} = ${text ?? HIDDEN}\n`);
    return 0;
  },
});

export const variableImport = command({
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

export const variableExport = command({
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

export const variablePolicy = command({
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

async function connect(state: string | undefined, io: Io): Promise<Connection> {
  return await new Installation(State.of(state, io.env)).operator();
}

function keyArgument(positionals: readonly string[], most: number): VariableKey {
  const [key] = positionals;
  if (key === undefined) throw new Misuse('which variable? see: cronium var list');
  atMost(positionals, most);
  return checkedKey(key);
}

function checkedKey(key: string): VariableKey {
  const result = VariableKey.safeParse(key);
  if (result.success) return result.data;
  throw new Misuse(
    `variable ${JSON.stringify(key)}: ${result.error.issues[0]?.message ?? 'not a key'}`,
  );
}

/** Shown for a value that must not be. */
const HIDDEN = '(secret)';

const plain = (text: string): string =>
  text.startsWith('"') ? (JSON.parse(text) as string) : text;

/** The value as its own source text. */
const variableJson = ({ key, text, version, updatedAt }: VariableChange): string =>
  `{"key":${JSON.stringify(key)},"value":${text},"version":${version},"updatedAt":${JSON.stringify(new Date(updatedAt).toISOString())}}`;

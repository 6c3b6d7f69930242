import type { Connection } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { isJson } from '#bridge/wire/json-source.js';
import type { Namespace, VariableKey } from '#bridge/wire/names.js';
import { VARIABLE_TYPES } from '#bridge/wire/protocol.js';
import { atMost, type Command, command, Misuse } from './command.js';
import { namespaceOf } from './values.js';
import {
  attributesArgument,
  checkedKey,
  connect,
  HIDDEN,
  isoTime,
  keyArgument,
  OPTIONS,
  OWNERS,
  plain,
  REVEAL,
  valueArgument,
  variableJson,
  versionArgument,
} from './variable-values.js';

const variableGet = command({
  name: 'var get',
  summary: 'Print a variable',
  usage: 'cronium var get KEY [--reveal] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '  --reveal             print it although it is secret',
    '  --json               the variable with its version and time; without it a string prints as its text, and bytes as they are',
    '',
    'example: cronium var get city --user ada',
  ].join('\n'),
  options: { ...OPTIONS, ...REVEAL },
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 1);
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const found = await server.call('variable.get', { namespace, key, reveal: values.reveal });
    if (values.json) io.out(`${variableJson(found)}\n`);
    else if (found.text === null)
      throw new BridgeError(
        'denied',
        `${key} is secret; to see it: cronium var get ${key} --reveal`,
      );
    else if (found.type === 'bytes') io.out(Buffer.from(plain(found.text), 'base64'));
    else io.out(`${plain(found.text)}\n`);
    return 0;
  },
});

const variableShow = command({
  name: 'var show',
  summary: 'Show all that is known of a variable: type, schema, expiry, labels, who set it',
  usage: 'cronium var show KEY [--reveal] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '  --reveal             its value, too, although it is secret',
    '',
    'example: cronium var show limits --user ada',
  ].join('\n'),
  options: { ...OPTIONS, ...REVEAL },
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 1);
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const found = await server.call('variable.get', { namespace, key, reveal: values.reveal });
    if (values.json) {
      io.out(`${variableJson(found)}\n`);
      return 0;
    }
    const { text, type, schema, secret, expiresAt, metadata = {}, version, updatedAt, by } = found;
    const lines: [string, string | undefined][] = [
      ['key', key],
      ['value', text ?? HIDDEN],
      ['type', type],
      ['schema', schema],
      ['secret', secret === true ? 'yes' : undefined],
      ['expires', expiresAt === undefined ? undefined : isoTime(expiresAt)],
      ...Object.entries(metadata).map(([name, label]): [string, string] => [
        'label',
        `${name}=${label}`,
      ]),
      ['version', String(version)],
      ['updated', `${isoTime(updatedAt)} by ${by}`],
    ];
    for (const [name, line] of lines) if (line !== undefined) io.out(`${name.padEnd(8)} ${line}\n`);
    return 0;
  },
});

const variableSet = command({
  name: 'var set',
  summary: 'Set a variable, and say what it is',
  usage: [
    `cronium var set KEY VALUE|@FILE|- [--string] [--type ${VARIABLE_TYPES.join('|')}|none]`,
    '            [--schema JSON|@FILE|none] [--secret | --no-secret] [--expires 30m|TIME|never]',
    '            [--label K=V]... [--no-labels] [--if-version N] [--user ID | --org ID] [--json]',
  ].join('\n'),
  help: [
    OWNERS,
    '  --string             take VALUE as text even where it is valid JSON: 5 is then "5"',
    '  --type TYPE          refuse values of another type; none: take any. bytes: those of VALUE, @FILE or - are kept, as base64',
    '  --schema JSON        refuse values that do not fit this JSON Schema; @FILE; or none',
    '  --secret             mask the value in what scripts print, and list it nowhere; --no-secret: no more',
    '  --expires WHEN       it ceases to exist in 30m, 12h or 7d, or at 2030-01-31T12:00:00Z; or never',
    '  --label K=V          a label; repeat for more. What is given replaces the labels there were; --no-labels: none',
    '  --if-version N       only if it is at this version; 0: only if there is none. Else nothing is changed, and the exit code is 1',
    '',
    'VALUE is JSON where it is valid JSON, and text where it is not. What is not said of a variable stays as it is.',
    '',
    'example: cronium var set db_password @password.txt --string --secret --expires 7d --user ada',
  ].join('\n'),
  options: {
    ...OPTIONS,
    string: { type: 'boolean', default: false },
    type: { type: 'string' },
    schema: { type: 'string' },
    secret: { type: 'boolean', default: false },
    'no-secret': { type: 'boolean', default: false },
    expires: { type: 'string' },
    label: { type: 'string', multiple: true },
    'no-labels': { type: 'boolean', default: false },
    'if-version': { type: 'string' },
  },
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 2);
    const [, argument] = positionals;
    if (argument === undefined) throw new Misuse(`set ${key} to what? give a value, @FILE or -`);
    const attributes = await attributesArgument(values, io);
    const { string } = values;
    const { type } = attributes;
    if (string && type === 'bytes')
      throw new Misuse('--string and --type bytes exclude each other');
    const wanted = values['if-version'];
    const ifVersion = wanted === undefined ? undefined : versionArgument(wanted, '--if-version');
    const namespace = namespaceOf(values);
    const text = await valueArgument(argument, { string, type }, io);
    using server = await connect(values.state, io);
    try {
      const { version } = await server.call('variable.set', {
        namespace,
        key,
        text,
        ...attributes,
        ...(ifVersion !== undefined && { ifVersion }),
      });
      if (values.json) io.out(`${JSON.stringify({ key, version })}\n`);
      return 0;
    } catch (error) {
      if (ifVersion === undefined || !(error instanceof BridgeError) || error.code !== 'conflict')
        throw error;
      const version = await presentVersion(server, namespace, key);
      if (values.json) io.out(`${JSON.stringify({ key, conflict: true, version })}\n`);
      io.err(
        version === 0
          ? `${key} is not set: there is no version ${ifVersion} of it; to set it anew: --if-version 0`
          : `${key} is at version ${version}, not ${ifVersion}: look at it (cronium var show ${key}), then try --if-version ${version}`,
      );
      return 1;
    }
  },
});

/** 0 = there is none. */
async function presentVersion(
  server: Connection,
  namespace: Namespace,
  key: VariableKey,
): Promise<number> {
  try {
    return (await server.call('variable.get', { namespace, key })).version;
  } catch (error) {
    if (error instanceof BridgeError && error.code === 'not_found') return 0;
    throw error;
  }
}

const variableAdd = command({
  name: 'var add',
  summary: 'Add to a number, and print what it is now',
  usage: 'cronium var add KEY NUMBER [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '',
    'Exact to the last digit, and of several at once none is lost. What is not there counts from 0.',
    '',
    'example: cronium var add visits 1 --user ada',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 2);
    const [, by] = positionals;
    if (by === undefined || !isJson(by) || !/^-?\d/.test(by))
      throw new Misuse(`add how much to ${key}? write a number like 1, -5 or 0.25`);
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const { version, text } = await server.call('variable.add', { namespace, key, by });
    io.out(
      values.json
        ? `{"key":${JSON.stringify(key)},"value":${text},"version":${version}}\n`
        : `${text}\n`,
    );
    return 0;
  },
});

const variableAppend = command({
  name: 'var append',
  summary: 'Append elements to an array, or text to a string',
  usage: 'cronium var append KEY JSON|@FILE|- [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '',
    'JSON is an array of elements or a string; what is no JSON is text. Of several at once none is lost.',
    '',
    'example: cronium var append hosts \'["web-3"]\' --org acme',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    const key = keyArgument(positionals, 2);
    const [, argument] = positionals;
    if (argument === undefined) throw new Misuse(`append what to ${key}? give JSON, @FILE or -`);
    const more = await valueArgument(argument, {}, io);
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const { version } = await server.call('variable.append', { namespace, key, more });
    if (values.json) io.out(`${JSON.stringify({ key, version })}\n`);
    return 0;
  },
});

const variableDelete = command({
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

const variableList = command({
  name: 'var list',
  summary: 'List variables with their values',
  usage: 'cronium var list [--prefix TEXT] [--user ID | --org ID] [--json]',
  help: [
    OWNERS,
    '  --prefix TEXT        only those whose keys begin so',
    '',
    'Of secret variables no value is shown; with --json they have "secret": true instead.',
    '',
    'example: cronium var list --prefix db_ --user ada',
  ].join('\n'),
  options: { ...OPTIONS, prefix: { type: 'string', default: '' } },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const namespace = namespaceOf(values);
    using server = await connect(values.state, io);
    const { variables } = await server.call('variable.list', { namespace, prefix: values.prefix });
    if (values.json) io.out(`[${variables.map(variableJson).join(',')}]\n`);
    else for (const { key, text } of variables) io.out(`${key} = ${text ?? HIDDEN}\n`);
    return 0;
  },
});

/** One variable at a time, and the list of them. */
export const VARIABLE_COMMANDS: readonly Command[] = [
  variableGet,
  variableShow,
  variableSet,
  variableAdd,
  variableAppend,
  variableList,
  variableDelete,
];

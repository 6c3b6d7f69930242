import { type ParseArgsConfig, parseArgs } from 'node:util';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';

export type Options = NonNullable<ParseArgsConfig['options']>;

export interface Io {
  /** Results: what a program would read. */
  readonly out: (result: string | Uint8Array) => void;
  /** Talk: progress, complaints, hints. */
  readonly err: (text: string) => void;
  readonly stdin: () => Promise<Buffer>;
  readonly env: NodeJS.ProcessEnv;
  /** Aborts at Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** The terminal that `out` writes to, as large as it is now; undefined where it is none. */
  readonly screen?: () => { readonly columns: number; readonly rows: number } | undefined;
}

type Values<O extends Options> = ReturnType<
  typeof parseArgs<{ options: O; allowPositionals: true }>
>['values'];

export interface Invocation<O extends Options> {
  readonly positionals: readonly string[];
  readonly values: Values<O>;
}

/** @throws Misuse when there are more words than a command takes */
export function atMost(positionals: readonly string[], count: number): void {
  const [extra] = positionals.slice(count);
  if (extra !== undefined)
    throw new Misuse(`what is ${JSON.stringify(extra)}? quote values that hold spaces`);
}

/** A command is data plus one function. The function returns the exit code: 0 done, 1 could not, 2 misused. */
export interface Command<O extends Options = Options> {
  readonly name: string;
  readonly summary: string;
  readonly usage: string;
  /** What `--help` shows below the usage: options and an example. */
  readonly help: string;
  readonly options: O;
  /**
   * For tab completion: the words that an option (by its name) or a positional (by its word in the usage) may be. Needed only
   * where the usage does not show them, as `--commit live|on-success` does.
   */
  readonly choices?: Readonly<Record<string, readonly string[]>>;
  /** Options whose value may be left out, with what they stand for then. */
  readonly impliedValues?: Readonly<Record<string, string>>;
  /** For programs: the overview leaves it out, and completion does not offer it. */
  readonly isHidden?: boolean;
  run(invocation: Invocation<O>, io: Io): Promise<number>;
}

/** Keeps the option types of each command while all of them fit in one list. */
export const command = <const O extends Options>(definition: Command<O>): Command =>
  definition as unknown as Command;

/** Options every command has. */
export const COMMON = {
  state: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const satisfies Options;

/** A mistake in the command line: exit code 2, with a pointer to the help. */
export class Misuse extends Error {
  override readonly name = 'Misuse';
}

/** Runs the command that `args` name. */
export async function dispatch(
  commands: readonly Command[],
  args: readonly string[],
  io: Io,
): Promise<number> {
  const found = commands
    .filter(({ name }) => name.split(' ').every((word, i) => args[i] === word))
    .sort((a, b) => b.name.length - a.name.length)[0];
  if (found === undefined) {
    const [first = ''] = args;
    const wantsHelp = ['', 'help', '--help', '-h'].includes(first);
    if (!wantsHelp) {
      const known = commands.filter(({ name }) => name.startsWith(`${first} `));
      io.err(
        known.length === 0
          ? `there is no command "${first}"`
          : `which one? ${known.map(({ name }) => `cronium ${name}`).join(', ')}`,
      );
    }
    (wantsHelp ? io.out : io.err)(overview(commands));
    return wantsHelp ? 0 : 2;
  }
  const rest = args.slice(found.name.split(' ').length);
  try {
    const invocation = parse(found, rest);
    if (invocation.values['help'] === true) {
      io.out(`${found.summary}\n\nusage: ${found.usage}\n\n${found.help}\n`);
      return 0;
    }
    return await found.run(invocation, io);
  } catch (error) {
    if (error instanceof Misuse) {
      io.err(`${error.message}\nusage: ${found.usage}\nmore: cronium ${found.name} --help`);
      return 2;
    }
    if (error instanceof BridgeError) {
      io.err(error.message);
      return error.code === 'invalid' ? 2 : 1;
    }
    // What nobody foresaw is still a sentence for whoever typed the command; DEBUG shows where it came from.
    io.err(asBridgeError(error).message);
    if (io.env['DEBUG'] !== undefined && error instanceof Error) io.err(error.stack ?? '');
    return 1;
  }
}

function parse(found: Command, args: readonly string[]): Invocation<Options> {
  try {
    const { values, positionals } = parseArgs({
      args: args.map((word, i) => {
        const implied = found.impliedValues?.[word.replace(/^--/, '')];
        if (implied !== undefined && /^(-|$)/.test(args[i + 1] ?? '')) return `${word}=${implied}`;
        return NEGATIVE.test(word) ? MARK + word : word;
      }),
      options: found.options,
      allowPositionals: true,
      strict: true,
    });
    for (const [name, value] of Object.entries(values))
      values[name] = Array.isArray(value) ? value.map(unmarked) : unmarked(value);
    return { values, positionals: positionals.map(unmarked) };
  } catch (error) {
    throw new Misuse(error instanceof Error ? error.message : String(error));
  }
}

/** No option begins with a digit: `-5` is a value. No argument holds a NUL, so that it can say so. */
const NEGATIVE = /^-\.?\d/;
const MARK = '\0';
const unmarked = <T extends string | boolean | undefined>(word: T): T =>
  typeof word === 'string' && word.startsWith(MARK) ? (word.slice(MARK.length) as T) : word;

function overview(commands: readonly Command[]): string {
  const shown = commands.filter(({ isHidden }) => isHidden !== true);
  const width = Math.max(...shown.map(({ name }) => name.length));
  const lines = shown.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'cronium runs scripts in containers, with their variables and results kept by an encrypted server',
    '',
    'usage: cronium COMMAND [options]',
    '',
    ...lines,
    '',
    'cronium COMMAND --help shows a command with its options and an example.',
    '--state DIR (or CRONIUM_STATE) chooses the installation; default /var/lib/cronium.',
    '',
  ].join('\n');
}

import type { Command } from './command.js';

/** What may stand where an option's value or a positional is expected. */
export type Source =
  | { readonly kind: 'words'; readonly words: readonly string[] }
  | { readonly kind: 'key' | 'execution' | 'file' | 'none' };

export interface OptionModel {
  readonly name: string;
  /** Its letter, where it has one. */
  readonly short: string | undefined;
  /** Undefined: a switch, which takes none. */
  readonly value: Source | undefined;
}

/** A command as tab completion sees it. */
export interface CommandModel {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly OptionModel[];
  readonly positionals: readonly Source[];
  /** Whether the last positional may come again. */
  readonly repeats: boolean;
}

/** Read from the commands' own tables and from their usage, which every command has: nothing is said twice. */
export const modelsOf = (commands: readonly Command[]): CommandModel[] =>
  commands.filter(({ isHidden }) => isHidden !== true).map(modelOf);

function modelOf({ name, summary, usage, options, choices = {} }: Command): CommandModel {
  const values = new Map<string, string>();
  const positionals: string[] = [];
  let repeats = false;
  // Alternative forms of a command begin with its name again.
  for (const form of usage.split(`cronium ${name}`).slice(1)) {
    const words = form.split(/\s+/).filter((word) => word !== '' && word !== '|');
    for (let i = 0; i < words.length; i++) {
      const word = bare(words[i] ?? '');
      if (!isOption(word)) {
        if (positionals.includes(word)) continue;
        positionals.push(word);
        repeats = /\.\.\.\]*$/.test(words[i] ?? '');
        continue;
      }
      const [option] =
        Object.entries(options).find(([long, { short }]) => named(word, long, short)) ?? [];
      if (option !== undefined && options[option]?.type === 'string')
        values.set(option, bare(words[++i] ?? ''));
    }
  }
  return {
    name,
    summary,
    options: Object.entries(options).map(([option, { type, short }]) => ({
      name: option,
      short,
      value:
        type === 'string'
          ? sourceOf(choices[option], values.get(option) ?? (option === 'state' ? 'DIR' : ''))
          : undefined,
    })),
    positionals: positionals.map((word) => sourceOf(choices[word], word)),
    repeats,
  };
}

/** Without brackets and dots: `[NAME=]EXECUTION...]` is `NAME=EXECUTION`. */
const bare = (word: string): string => word.replace(/[[\]()]|\.\.\./g, '');

/** A single `-` is none: it stands for standard input. */
const isOption = (word: string): boolean => /^-./.test(word);

const named = (word: string, long: string, short: string | undefined): boolean =>
  word === `--${long}` || (short !== undefined && word === `-${short}`);

function sourceOf(words: readonly string[] | undefined, word: string): Source {
  if (words !== undefined) return { kind: 'words', words };
  // `bash|python|node`: what is written small is meant literally.
  if (/^[a-z][a-z0-9-]*(\|[a-z][a-z0-9-]*)+$/.test(word))
    return { kind: 'words', words: word.split('|') };
  if (word === 'KEY') return { kind: 'key' };
  if (/\bEXECUTION$/.test(word)) return { kind: 'execution' };
  if (/(?<!@)\b(FILE|DIR|SCRIPT)\b/.test(word)) return { kind: 'file' };
  return { kind: 'none' };
}

/** A command line up to the word that is being typed, taken apart. */
export interface Place {
  readonly model: CommandModel;
  /** What the word being typed should be. */
  readonly source: Source;
  /** The value given for each option so far. */
  readonly values: ReadonlyMap<string, string>;
}

/** `words`: all before the one that is being typed, `cronium` itself left out. */
export function placeOf(
  models: readonly CommandModel[],
  words: readonly string[],
): Place | undefined {
  const model = models
    .filter(({ name }) => name.split(' ').every((word, i) => words[i] === word))
    .sort((a, b) => b.name.length - a.name.length)[0];
  if (model === undefined) return undefined;
  const values = new Map<string, string>();
  let expected: OptionModel | undefined;
  let count = 0;
  for (const word of words.slice(model.name.split(' ').length)) {
    if (expected !== undefined) {
      values.set(expected.name, word);
      expected = undefined;
    } else if (!isOption(word)) count++;
    else {
      const [given, value] = splitOnce(word);
      const option = model.options.find(({ name, short }) => named(given, name, short));
      if (option?.value === undefined) continue;
      if (value === undefined) expected = option;
      else values.set(option.name, value);
    }
  }
  const positional =
    model.positionals[count] ?? (model.repeats ? model.positionals.at(-1) : undefined);
  return { model, source: expected?.value ?? positional ?? { kind: 'none' }, values };
}

function splitOnce(text: string): [string, string | undefined] {
  const at = text.indexOf('=');
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

import type { CommandModel, Source } from './completion-model.js';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/**
 * What a shell has to run for tab completion. Names, options and fixed words stand in the script; variable keys and execution
 * ids are asked for with `cronium __complete`.
 */
export function completionScript(shell: Shell, models: readonly CommandModel[]): string {
  const scripts = { bash, zsh, fish } as const satisfies Record<Shell, unknown>;
  return scripts[shell](models);
}

/** Single quotes keep everything in all three shells; what is in them here holds none itself. */
const quoted = (text: string): string => `'${text.replaceAll("'", '’')}'`;

const sourceText = (source: Source): string =>
  source.kind === 'words' ? `words ${source.words.join(' ')}` : source.kind;

/** By first word, the words that follow it; '' = the first words themselves. */
function wordsAfter(models: readonly CommandModel[]): Map<string, string[]> {
  const after = new Map<string, Set<string>>([['', new Set()]]);
  for (const { name } of models) {
    const [first = '', second] = name.split(' ');
    after.get('')?.add(first);
    if (second === undefined) continue;
    const seconds = after.get(first) ?? new Set();
    after.set(first, seconds.add(second));
  }
  return new Map([...after].map(([first, words]) => [first, [...words]]));
}

const optionsOf = ({ options }: CommandModel): string =>
  options.map(({ name }) => `--${name}`).join(' ');

/** The table that the functions of bash and zsh look into: `key` and `value` in pairs. */
function* table(models: readonly CommandModel[]): Generator<[key: string, value: string]> {
  for (const [first, words] of wordsAfter(models)) yield [`after|${first}`, words.join(' ')];
  for (const model of models) {
    yield [`options|${model.name}`, optionsOf(model)];
    for (const { name, short, value } of model.options) {
      if (value === undefined) continue;
      yield [`value|${model.name}|--${name}`, sourceText(value)];
      if (short !== undefined) yield [`value|${model.name}|-${short}`, sourceText(value)];
    }
    for (const [i, source] of model.positionals.entries()) {
      if (source.kind !== 'none') yield [`word|${model.name}|${i}`, sourceText(source)];
      if (model.repeats && i === model.positionals.length - 1)
        yield [`more|${model.name}`, sourceText(source)];
    }
  }
}

const bash = (models: readonly CommandModel[]): string => `\
# Tab completion of cronium for bash: source <(cronium completion bash)
declare -gA _cronium_table=(
${[...table(models)].map(([key, value]) => `  [${quoted(key)}]=${quoted(value)}`).join('\n')}
)

_cronium() {
  COMPREPLY=()
  [[ $COMP_CWORD -ge 1 ]] || return 0
  local IFS=$' \\t\\n'
  # Readline splits words at = and : as well; here they are put together again.
  local -a line=()
  local i piece glue=''
  for ((i = 1; i <= COMP_CWORD; i++)); do
    piece=\${COMP_WORDS[i]}
    if [[ \${#line[@]} -gt 0 && ( -n $glue || $piece == [=:]* ) ]]; then line[\${#line[@]}-1]+=$piece
    else line+=("$piece"); fi
    if [[ $piece == *[=:] ]]; then glue=1; else glue=''; fi
  done
  local typed=\${line[\${#line[@]}-1]}
  unset "line[\${#line[@]}-1]"
  if [[ $piece == *[=:] ]]; then piece=''; fi

  local command='' at=0 expected='' count=0 source='' word
  if [[ \${#line[@]} -eq 0 ]]; then source="words \${_cronium_table['after|']:-}"
  elif [[ -n \${_cronium_table["options|\${line[0]} \${line[1]:-}"]:-} ]]; then command="\${line[0]} \${line[1]}" at=2
  elif [[ -n \${_cronium_table["options|\${line[0]}"]:-} ]]; then command=\${line[0]} at=1
  elif [[ \${#line[@]} -eq 1 ]]; then source="words \${_cronium_table["after|\${line[0]}"]:-}"
  fi
  if [[ -n $command ]]; then
    for word in "\${line[@]:at}"; do
      if [[ -n $expected ]]; then expected=''
      elif [[ $word == -?* ]]; then expected=\${_cronium_table["value|$command|$word"]:-}
      else ((count++)); fi
    done
    if [[ -n $expected ]]; then source=$expected
    elif [[ $typed == --*=* ]]; then
      source=\${_cronium_table["value|$command|\${typed%%=*}"]:-}
      line+=("\${typed%%=*}")
      typed=\${typed#*=}
    elif [[ $typed == -* ]]; then source="words \${_cronium_table["options|$command"]:-}"
    else
      source=\${_cronium_table["word|$command|$count"]:-}
      if [[ -z $source ]]; then source=\${_cronium_table["more|$command"]:-}; fi
    fi
  fi

  # An open quote stays; what is typed after it needs no escapes.
  local quote=''
  if [[ $typed == [\\"\\']* ]]; then quote=\${typed:0:1} typed=\${typed:1}; fi
  if [[ -z $quote ]]; then typed=\${typed//\\\\/}; fi
  local -a found=()
  case $source in
    words\\ *) read -ra found <<<"\${source#words }" ;;
    key | execution)
      local program=\${COMP_WORDS[0]}
      if [[ -z $(type -P -- "$program") ]]; then program=cronium; fi
      mapfile -t found < <("$program" __complete -- "\${line[@]}" "$typed" 2>/dev/null </dev/null)
      ;;
    file)
      compopt -o filenames 2>/dev/null
      mapfile -t found < <(compgen -f -- "$typed")
      ;;
  esac
  # Only what follows the last = or : of the word is replaced.
  local plain=\${piece#[\\"\\']}
  plain=\${plain//\\\\/}
  local keep=$((\${#typed} - \${#plain}))
  for word in "\${found[@]}"; do
    [[ $word == "$typed"* ]] || continue
    word=\${word:keep > 0 ? keep : 0}
    if [[ -z $quote && $source != file ]]; then printf -v word %q "$word"; fi
    COMPREPLY+=("$word")
  done
}

complete -F _cronium cronium
`;

const zsh = (models: readonly CommandModel[]): string => `\
#compdef cronium
# Tab completion of cronium for zsh: source <(cronium completion zsh), after compinit
typeset -gA _cronium_table
_cronium_table=(
${[...table(models)].map(([key, value]) => `  ${quoted(key)} ${quoted(value)}`).join('\n')}
)

_cronium() {
  local -a line
  line=("\${(@Q)words[2,CURRENT-1]}")
  local command='' at=0 expected='' count=0 source='' word key
  if (( \${#line} == 0 )); then key='after|'; source="words \${_cronium_table[$key]}"
  else
    key="options|\${line[1]} \${line[2]}"
    if [[ -n \${_cronium_table[$key]} ]]; then command="\${line[1]} \${line[2]}" at=2
    else
      key="options|\${line[1]}"
      if [[ -n \${_cronium_table[$key]} ]]; then command=\${line[1]} at=1
      elif (( \${#line} == 1 )); then key="after|\${line[1]}"; source="words \${_cronium_table[$key]}"
      fi
    fi
  fi
  if [[ -n $command ]]; then
    for word in "\${(@)line[at+1,-1]}"; do
      key="value|$command|$word"
      if [[ -n $expected ]]; then expected=''
      elif [[ $word == -?* ]]; then expected=\${_cronium_table[$key]}
      else (( count += 1 )); fi
    done
    if [[ -n $expected ]]; then source=$expected
    elif [[ $PREFIX == --*=* ]]; then
      key="value|$command|\${PREFIX%%=*}"
      source=\${_cronium_table[$key]}
      line+=("\${PREFIX%%=*}")
      compset -P 1 '*='
    elif [[ $PREFIX == -* ]]; then key="options|$command"; source="words \${_cronium_table[$key]}"
    else
      key="word|$command|$count"
      source=\${_cronium_table[$key]}
      key="more|$command"
      if [[ -z $source ]]; then source=\${_cronium_table[$key]}; fi
    fi
  fi
  local -a found
  case $source in
    words\\ *) found=(\${=source#words }) ;;
    key|execution) found=("\${(@f)$("\${(Q)words[1]}" __complete -- "\${line[@]}" "\${(Q)PREFIX}" 2>/dev/null </dev/null)}") ;;
    file) _files; return ;;
  esac
  found=(\${found:#})
  if (( \${#found} )); then compadd -- "\${found[@]}"; fi
}

if [[ \${funcstack[1]} == _cronium ]]; then _cronium "$@"; else compdef _cronium cronium; fi
`;

function fish(models: readonly CommandModel[]): string {
  const lines: string[] = [];
  const after = wordsAfter(models);
  const add = (condition: string, rest: string) =>
    lines.push(`complete -c cronium -n ${quoted(condition)} ${rest}`);
  for (const [first, words] of after) {
    const summaries = words.map((word) => {
      const name = first === '' ? word : `${first} ${word}`;
      return [word, models.find((model) => model.name === name)?.summary ?? ''] as const;
    });
    for (const [word, summary] of summaries)
      add(`__cronium_after ${first}`.trim(), `-a ${word} -d ${quoted(summary)}`);
  }
  for (const model of models) {
    const { name, options, positionals, repeats } = model;
    for (const { name: option, short, value } of options) {
      const letter = short === undefined ? '' : `-s ${short} `;
      const takes = value === undefined ? '' : fishValue(value);
      add(`__cronium_in ${name}`, `-l ${option} ${letter}${takes}`.trim());
    }
    const values = options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ name: long, short }) => [
        `--${long}`,
        ...(short === undefined ? [] : [`-${short}`]),
      ])
      .join(' ');
    for (const [i, source] of positionals.entries()) {
      if (source.kind === 'none') continue;
      const count = repeats && i === positionals.length - 1 ? `${i}-` : `${i}`;
      add(
        `__cronium_in ${name}; and __cronium_at ${count} ${name.split(' ').length} ${values}`,
        source.kind === 'file' ? '-F' : fishWords(source),
      );
    }
  }
  return `\
# Tab completion of cronium for fish: cronium completion fish | source
function __cronium_after
    set -l line (commandline -opc)
    test (count $line) -eq (math 1 + (count $argv)); and test "$line[2..]" = "$argv"
end

function __cronium_in
    set -l line (commandline -opc)
    test "$line[2..$(math 1 + (count $argv))]" = "$argv"
end

# How many plain words there are after the command; options that take a value follow.
function __cronium_at -a wanted words
    set -l line (commandline -opc)
    set -l seen 0
    set -l skip 0
    for word in $line[(math 2 + $words)..]
        if test $skip -eq 1
            set skip 0
        else if string match -q -- '-?*' $word
            contains -- $word $argv[3..]; and set skip 1
        else
            set seen (math $seen + 1)
        end
    end
    if string match -q -- '*-' $wanted
        test $seen -ge (string replace -- - '' $wanted)
    else
        test $seen -eq $wanted
    end
end

function __cronium_ask
    set -l line (commandline -opc)
    $line[1] __complete -- $line[2..] (commandline -ct) 2>/dev/null </dev/null
end

complete -c cronium -f
${lines.join('\n')}
`;
}

const fishWords = (source: Source): string =>
  `-a ${source.kind === 'words' ? quoted(source.words.join(' ')) : quoted('(__cronium_ask)')}`;

function fishValue(source: Source): string {
  if (source.kind === 'file') return '-rF';
  return source.kind === 'none' ? '-x' : `-x ${fishWords(source)}`;
}

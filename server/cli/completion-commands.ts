import { Connection } from '#bridge/client/connection.js';
import { Installation, SOFTWARE } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, type Command, command, type Io, Misuse } from './command.js';
import { modelsOf, type Place, placeOf } from './completion-model.js';
import { completionScript, SHELLS } from './completion-scripts.js';
import { namespaceOf, oneOf } from './values.js';

/** Whoever presses Tab waits no longer for a server, after the time that Node takes to start. */
const ANSWER_MS = 300;

/** More than that nobody reads, and a shell takes long to show them. */
const CANDIDATES_MAX = 1000;
const EXECUTIONS = 100;

/** `all`: every command of the program, these included. */
export const completionCommands = (all: () => readonly Command[]): readonly Command[] => [
  command({
    name: 'completion',
    summary: 'Print what a shell needs for tab completion',
    usage: `cronium completion ${SHELLS.join('|')}`,
    help: [
      'Commands, options and their fixed words, and, while the server answers, variable keys and execution ids.',
      '',
      '  bash   source <(cronium completion bash)         in ~/.bashrc',
      '  zsh    source <(cronium completion zsh)          in ~/.zshrc, after compinit',
      '  fish   cronium completion fish | source          in ~/.config/fish/config.fish',
      '',
      'example: source <(cronium completion bash)',
    ].join('\n'),
    options: { help: { type: 'boolean', short: 'h', default: false } },
    async run({ positionals }, io) {
      atMost(positionals, 1);
      const [shell] = positionals;
      if (shell === undefined) throw new Misuse(`for which shell? ${SHELLS.join(', ')}`);
      io.out(completionScript(oneOf(shell, SHELLS, 'the shell'), modelsOf(all())));
      return 0;
    },
  }),

  command({
    name: '__complete',
    isHidden: true,
    summary: 'Print what the last word may become',
    usage: 'cronium __complete -- WORD...',
    help: 'For the scripts of `cronium completion`.\n\nexample: cronium __complete -- var get ci',
    options: {},
    async run({ positionals }, io) {
      const typed = positionals.at(-1) ?? '';
      const place = placeOf(modelsOf(all()), positionals.slice(0, -1));
      if (place === undefined) return 0;
      let found: readonly string[] = [];
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(), ANSWER_MS);
      try {
        found = await candidates(place, typed, io, late.signal);
      } catch {
        // Nobody asked for an error: no server, no answer in time, an option that is wrong so far.
      } finally {
        clearTimeout(timer);
      }
      const fitting = found.filter((one) => one.startsWith(typed)).slice(0, CANDIDATES_MAX);
      io.out(fitting.map((one) => `${one}\n`).join(''));
      return 0;
    },
  }),
];

async function candidates(
  { source, values }: Place,
  typed: string,
  io: Io,
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (source.kind === 'words') return source.words;
  if (source.kind !== 'key' && source.kind !== 'execution') return [];
  const state = State.of(values.get('state'), io.env);
  const address = state.settings().listen;
  const tls = new Installation(state).tls('operator');
  using server = await Connection.open({ address, tls, software: SOFTWARE, signal });
  if (source.kind === 'key') {
    const namespace = namespaceOf({ user: values.get('user'), org: values.get('org') });
    const wanted = { namespace, prefix: typed };
    const { variables } = await server.call('variable.list', wanted, { signal });
    return variables.map(({ key }) => key);
  }
  // The newest are those that somebody wants to look at. After `NAME=` too, as --input-from takes it.
  const { executions } = await server.call('execution.list', { limit: EXECUTIONS }, { signal });
  const before = typed.slice(0, typed.lastIndexOf('=') + 1);
  return executions.map(({ executionId }) => before + executionId);
}

import type { Connection } from '#bridge/client/connection.js';
import { renderMembers } from '#bridge/wire/json-source.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { type Io, Misuse } from './command.js';

/**
 * The input of an event that follows others. One predecessor: its output where that is an object or an array, else `{}`, as
 * legacy chained. Several, or one by name: an object of their outputs as they are, null for one that left none.
 */
export async function chainedInput(
  server: Connection,
  from: readonly string[],
  io: Io,
): Promise<string> {
  const sources = from.map(sourceOf);
  const outputs: [string, string | null][] = [];
  for (const { name, executionId } of sources) {
    const { record, output } = await server.call('execution.get', { executionId });
    const { status, event } = record as { status?: string; event: { name: string } };
    if (status === undefined)
      throw new Misuse(`execution ${executionId} has not ended; wait for it, then try again`);
    if (status !== 'succeeded') io.err(`note: execution ${executionId} ended as "${status}"`);
    outputs.push([name ?? event.name, output]);
  }
  const [only] = outputs;
  if (outputs.length === 1 && sources[0]?.name === undefined) {
    const text = only?.[1] ?? '';
    return /^[[{]/.test(text) ? text : '{}';
  }
  const names = outputs.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new Misuse(
      `two outputs would be called ${JSON.stringify(twice)}: name them, as in --input-from first=ID --input-from second=ID`,
    );
  return renderMembers(outputs.map(([name, text]) => [name, text ?? 'null']));
}

/** `NAME=ID` or `ID`. */
function sourceOf(argument: string): { name: string | undefined; executionId: ExecutionId } {
  const at = argument.lastIndexOf('=');
  const executionId = ExecutionId.safeParse(argument.slice(at + 1));
  if (!executionId.success)
    throw new Misuse(
      `--input-from ${JSON.stringify(argument)}: that is no execution id; \`cronium run\` prints it`,
    );
  return { name: at < 0 ? undefined : argument.slice(0, at), executionId: executionId.data };
}

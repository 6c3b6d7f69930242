import { StringDecoder } from 'node:string_decoder';
import type { Kept } from '#bridge/wire/watch.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { COMMON, type Command, command, Misuse } from './command.js';
import { executionArgument } from './execution-commands.js';
import { KeptOutput, notHere } from './kept-output.js';
import { PacedWriter } from './paced-writer.js';

const TAIL_MAX = 1_000_000_000;

export const executionLogs: Command = command({
  name: 'exec logs',
  summary: 'Show what an execution of this machine prints, or has printed',
  usage: 'cronium exec logs EXECUTION [-f] [--tail N] [-t] [--json]',
  help: [
    '  -f, --follow         go on until the execution has ended; Ctrl-C ends this, not the script',
    '  --tail N             begin with the last N lines',
    '  -t, --timestamps     begin each line with the time at which mountd read it',
    '  --json               one JSON object for each piece of output: {"at", "stream", "text"}, or {"omitted": BYTES}',
    '',
    'What the script wrote to stdout and stderr comes on stdout and stderr, with secrets masked. The last MiB is kept while it runs and for',
    'ten minutes more. The script never waits for whoever follows: if you read too slowly, a line says how many bytes are missing.',
    '',
    'example: cronium exec logs -f --tail 20 5f0c…',
  ].join('\n'),
  options: {
    ...COMMON,
    follow: { type: 'boolean', short: 'f', default: false },
    tail: { type: 'string' },
    timestamps: { type: 'boolean', short: 't', default: false },
  },
  async run({ positionals, values }, io) {
    const executionId = executionArgument(positionals);
    const { follow, json, timestamps } = values;
    const tail = values.tail === undefined ? undefined : Number(values.tail);
    if (tail !== undefined && !(/^\d+$/.test(values.tail ?? '') && tail <= TAIL_MAX))
      throw new Misuse(`--tail ${values.tail}: write a number of lines`);
    const target = new Installation(State.of(values.state, io.env));
    target.state.settings(); // says so when nothing is installed
    const request = { executionId, follow, ...(tail !== undefined && { tail }) };
    using output = new KeptOutput(target, request, io.signal);
    const writer = new PacedWriter(output);
    const show = json ? new JsonPieces() : new Lines(timestamps);
    try {
      const result = await output.end((kept) => show.pieces(kept, writer));
      show.end(writer);
      if (follow && !json && result?.status !== null && result !== undefined)
        io.err(`execution ${executionId} has ended: ${result.status}`);
      return 0;
    } catch (error) {
      show.end(writer);
      throw await notHere(target, executionId, KEPT_FOR, error);
    }
  },
});

const KEPT_FOR = 'what it printed is kept for ten minutes, where it ran';

/** As a person reads it: bytes as they are, perhaps with the time before every line. */
class Lines {
  readonly #timestamps: boolean;
  /** Streams whose last line goes on. */
  readonly #within = new Set<string>();

  constructor(timestamps: boolean) {
    this.#timestamps = timestamps;
  }

  pieces({ log, omitted }: Kept, writer: PacedWriter): void {
    if (omitted !== undefined) {
      this.#within.clear();
      writer.write(
        process.stderr,
        `(${omitted} bytes of output are missing here: they are not kept any more)\n`,
      );
    }
    if (log === undefined) return;
    const target = log.stream === 'stdout' ? process.stdout : process.stderr;
    writer.write(target, this.#timestamps ? this.#stamped(log) : log.data);
  }

  end(_writer: PacedWriter): void {}

  #stamped({ stream, data, at }: NonNullable<Kept['log']>): Uint8Array {
    const stamp = Buffer.from(`${new Date(at).toISOString()} `);
    const parts: Uint8Array[] = [];
    for (let from = 0; from < data.byteLength; ) {
      const newline = data.indexOf(NEWLINE, from);
      const end = newline < 0 ? data.byteLength : newline + 1;
      if (!this.#within.has(stream)) parts.push(stamp);
      if (newline < 0) this.#within.add(stream);
      else this.#within.delete(stream);
      parts.push(data.subarray(from, end));
      from = end;
    }
    return Buffer.concat(parts);
  }
}

const NEWLINE = 0x0a;

/** As a program reads it. A character that is cut in two stands in the later piece. */
class JsonPieces {
  readonly #decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
  #lastAt = 0;

  pieces({ log, omitted }: Kept, writer: PacedWriter): void {
    if (omitted !== undefined) writer.write(process.stdout, `${JSON.stringify({ omitted })}\n`);
    if (log === undefined) return;
    const { stream, data, at, isWarning } = log;
    this.#lastAt = at;
    const text =
      isWarning === true
        ? Buffer.from(data).toString('utf8')
        : this.#decoders[stream].write(Buffer.from(data));
    this.#write(writer, stream, text, at, isWarning);
  }

  end(writer: PacedWriter): void {
    for (const stream of ['stdout', 'stderr'] as const)
      this.#write(writer, stream, this.#decoders[stream].end(), this.#lastAt);
  }

  #write(writer: PacedWriter, stream: string, text: string, at: number, isWarning?: true): void {
    if (text === '') return;
    const warning = isWarning === true && { isWarning };
    const piece = { at: new Date(at).toISOString(), stream, text, ...warning };
    writer.write(process.stdout, `${JSON.stringify(piece)}\n`);
  }
}

import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const DIRECTORY = fileURLToPath(new URL('../../../test/corpus-hostile/', import.meta.url));

/** A hostile program and what must come of it, as the comment it begins with says. */
export interface Program {
  readonly name: string;
  readonly extension: string;
  readonly text: string;
  readonly tries: string;
  /** What `cronium run` may say: status and exit code; several where it is a race. */
  readonly outcomes: readonly { readonly status: string; readonly exitCode: number }[];
  /** All of it must match; without one, there must be nothing. */
  readonly stdout: RegExp;
  /** A shell's or interpreter's complaints differ too much to be nothing by default: anything. */
  readonly stderr: RegExp;
  /** Joined by newlines; without one, there must be none. */
  readonly warnings: RegExp;
  /** Of `cronium run`. `$NAME` stands for what the test knows under that name. */
  readonly options: readonly string[];
  /** JSON text; null unless it says so; undefined: whatever it is. */
  readonly output: string | undefined;
  /** The value of a secret variable that it has. */
  readonly secret: string | undefined;
  /** Others would disturb it, or it them, in a way that is none of the bridge's business. */
  readonly isAlone: boolean;
}

const FIELDS =
  /^(?:#|\/\/) (Tries|Outcome|Stdout|Stderr|Warnings|Options|Output|Secret|Alone|Uses): (.*)$/;

/** Every program of the corpus, in order. @throws when a header is not as it should be */
export function programs(): Program[] {
  const attempts = readFileSync(join(DIRECTORY, 'attempts.py'), 'utf8');
  return readdirSync(join(DIRECTORY, 'programs'))
    .sort()
    .map((name) => {
      const source = readFileSync(join(DIRECTORY, 'programs', name), 'utf8');
      const fields = new Map<string, string>();
      for (const line of source.split('\n')) {
        const [, field, value] = FIELDS.exec(line) ?? [];
        if (field === undefined || value === undefined) break;
        fields.set(field, value);
      }
      const [tries, outcome] = [fields.get('Tries'), fields.get('Outcome')];
      if (tries === undefined || outcome === undefined)
        throw new Error(`${name} does not say what it tries, and what must come of it`);
      const pattern = (field: string, otherwise: RegExp) => {
        const stated = fields.get(field);
        return stated === undefined ? otherwise : new RegExp(stated);
      };
      return {
        name,
        tries,
        extension: extname(name).slice(1),
        text: fields.get('Uses') === 'attempts' ? attempts + source : source,
        outcomes: outcome.split('|').map((one) => {
          const [status = '', exitCode] = one.split(' ');
          return { status, exitCode: Number(exitCode) };
        }),
        stdout: pattern('Stdout', /^$/),
        stderr: pattern('Stderr', /(?:)/),
        warnings: pattern('Warnings', /^$/),
        options: fields.get('Options')?.split(' ') ?? [],
        output: fields.get('Output'),
        secret: fields.get('Secret'),
        isAlone: fields.has('Alone'),
      };
    });
}

/** What runs beside them and must not notice. */
export const neighbour = (): string => readFileSync(join(DIRECTORY, 'neighbour.py'), 'utf8');

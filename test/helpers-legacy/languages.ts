import { execFileSync, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import {
  chmod,
  copyFile,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

/** One line of a script, the same in every language. */
export type Step =
  | { readonly call: string; readonly with: readonly Json[] }
  | { readonly write: string; readonly text: string }
  | { readonly enter: string };

/** `jq` and `plain` are Bash with and without jq. */
export type Language = 'node' | 'python' | 'jq' | 'plain';
export const LANGUAGES: readonly Language[] = ['node', 'python', 'jq', 'plain'];

/** `bash` speaks for jq and plain, `all` for every language that says nothing itself. */
export type Per<T> = { readonly [L in Language | 'bash' | 'all']?: T };

export function pick<T>(per: Per<T> | undefined, language: Language): T | undefined {
  const family = language === 'jq' || language === 'plain' ? per?.bash : undefined;
  return per?.[language] ?? family ?? per?.all;
}

/** Every run has this zone, so local time and UTC cannot be mistaken for one another. */
const ZONE = '+05:45';

interface Dialect {
  readonly name: string;
  readonly helper: string;
  readonly script: string;
  /** What the executor puts before the user's script. */
  readonly prelude: string;
  /** The interpreter; null when this machine has none, so the language is skipped. */
  readonly program: string | null;
  /** What the language writes as `__updated__`. */
  readonly stamp: RegExp;
  /** Makes a stamp readable for Date.parse. */
  readonly instant: (stamp: string) => number;
  readonly render: (step: Step) => string;
  /** What printing the answer of a call looks like. */
  readonly shown: (answer: Json) => string;
  /** How the helper writes a document. */
  readonly written: (document: Json) => string;
}

const quote = (text: string) => JSON.stringify(text);
const quoteForBash = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const plainText = (value: Json) => (typeof value === 'string' ? value : JSON.stringify(value));
const ascii = (text: string) =>
  text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

function onPath(name: string): string | null {
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return join(directory, name);
    } catch {
      // not here
    }
  }
  return null;
}

/** The interpreter itself: a version manager's wrapper would cost each run more than the script does. */
function python(): string | null {
  const found = onPath('python3');
  if (found === null) return null;
  const args = ['-c', 'import sys; print(sys.executable)'];
  return execFileSync(found, args, { encoding: 'utf8' }).trim();
}

const bash: Omit<Dialect, 'name' | 'program'> = {
  helper: 'cronium.sh',
  script: 'script_7.sh',
  prelude: '#!/bin/bash\nsource ./cronium.sh\n\n',
  stamp: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+05:45$/,
  instant: Date.parse,
  render(step) {
    if ('call' in step) {
      const args = step.with.map((value) => ` ${quoteForBash(plainText(value))}`);
      return `cronium_${step.call}${args.join('')}`;
    }
    if ('enter' in step) return `cd ${quoteForBash(step.enter)}`;
    return `printf %s ${quoteForBash(step.text)} > ${quoteForBash(step.write)}`;
  },
  shown: (answer) => (answer === null ? '' : `${plainText(answer)}\n`),
  written: (document) => `${JSON.stringify(document, null, 2)}\n`,
};

const DIALECTS: { readonly [L in Language]: Dialect } = {
  node: {
    name: 'Node',
    helper: 'cronium.js',
    script: 'script_7.js',
    prelude:
      "const cronium = require('./cronium.js');\n\nconst show = (a) => console.log(JSON.stringify(a ?? null));\n",
    program: process.execPath,
    stamp: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/,
    instant: Date.parse,
    render(step) {
      if ('call' in step)
        return `show(cronium.${step.call}(${step.with.map((v) => JSON.stringify(v)).join(', ')}));`;
      if ('enter' in step) return `process.chdir(${quote(step.enter)});`;
      return `require('fs').writeFileSync(${quote(step.write)}, ${quote(step.text)});`;
    },
    shown: (answer) => `${JSON.stringify(answer)}\n`,
    written: (document) => JSON.stringify(document, null, 2),
  },
  python: {
    name: 'Python',
    helper: 'cronium.py',
    script: 'script_7.py',
    prelude: `import cronium

import json, os
show = lambda answer: print(json.dumps(answer, separators=(',', ':'), ensure_ascii=False))
`,
    program: python(),
    // isoformat() leaves out the fraction in the one case of a million when it is zero.
    stamp: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?$/,
    instant: (stamp) => Date.parse(stamp.slice(0, 19) + ZONE),
    render(step) {
      if ('call' in step) {
        const args = step.with.map((value) => `json.loads(${quote(JSON.stringify(value))})`);
        return `show(cronium.${step.call}(${args.join(', ')}))`;
      }
      if ('enter' in step) return `os.chdir(${quote(step.enter)})`;
      return `with open(${quote(step.write)}, 'w') as f: f.write(${quote(step.text)})`;
    },
    shown: (answer) => `${JSON.stringify(answer)}\n`,
    written: (document) => ascii(JSON.stringify(document, null, 2)),
  },
  jq: { ...bash, name: 'Bash with jq', program: onPath('jq') && onPath('bash') },
  plain: { ...bash, name: 'Bash without jq', program: onPath('bash') },
};

export const dialectOf = (language: Language): Dialect => DIALECTS[language];

export interface Ended {
  readonly exit: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Text by path of every file but the script, its helper and Python's cache. */
  readonly files: { readonly [path: string]: string };
}

/** In the texts of variables.json in `Ended`, a stamp of this very minute reads so. */
export const NOW = '<now>';

// dist/test/helpers-legacy -> the repository
const repository = join(dirname(fileURLToPath(import.meta.url)), '../../..');

/** A directory that as PATH offers bash and cat alone. The caller removes it. */
export async function pathWithoutJq(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'helpers-path-'));
  for (const name of ['bash', 'cat']) {
    const program = onPath(name);
    if (program !== null) await symlink(program, join(directory, name));
  }
  return directory;
}

/** Runs lines as a legacy script in a fresh run directory, as the executor launched them. */
export async function runScript(
  language: Language,
  body: string,
  given: {
    readonly files: { readonly [path: string]: string };
    readonly links: { readonly [path: string]: string };
  },
  path: string,
): Promise<Ended> {
  const { helper, script, prelude, program } = dialectOf(language);
  if (program === null) throw new Error(`no interpreter for ${language}`);
  const directory = await mkdtemp(join(tmpdir(), 'helpers-legacy-'));
  try {
    await copyFile(join(repository, 'helpers-legacy', helper), join(directory, helper));
    await chmod(join(directory, helper), 0o755);
    await writeFile(join(directory, script), `${prelude}${body}\n`);
    for (const [name, text] of Object.entries(given.files)) {
      await mkdir(dirname(join(directory, name)), { recursive: true });
      await writeFile(join(directory, name), text);
    }
    for (const [name, target] of Object.entries(given.links))
      await link(join(directory, target), join(directory, name));

    const ended = await run(program, script, directory, path);
    const files: Record<string, string> = {};
    for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
      const name = join(entry.path, entry.name).slice(directory.length + 1);
      if (!entry.isFile() || name === helper || name === script || name.startsWith('__pycache__'))
        continue;
      const text = await readFile(join(directory, name), 'utf8');
      files[name] = text.replace(/(?<="__updated__": ")[^"]*/g, (stamp) => nowOr(language, stamp));
    }
    return { ...ended, files };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function nowOr(language: Language, stamp: string): string {
  const { stamp: format, instant } = dialectOf(language);
  return format.test(stamp) && Math.abs(Date.now() - instant(stamp)) < 60_000 ? NOW : stamp;
}

function run(program: string, script: string, cwd: string, path: string) {
  const env = { PATH: path, HOME: cwd, LANG: 'C.UTF-8', TZ: `TEST-${ZONE.slice(1)}`, TMPDIR: cwd };
  return new Promise<Omit<Ended, 'files'>>((resolve, reject) => {
    // A script that takes 20 s hangs: most end within 0.2 s, also on a loaded machine.
    const child = spawn(program, [script], {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 20_000,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', reject);
    child.on('close', (exit) => resolve({ exit, stdout, stderr }));
  });
}

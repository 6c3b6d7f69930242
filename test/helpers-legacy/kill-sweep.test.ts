import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import t, { type Test } from 'tap';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn, TestMount, type TestTree } from '#test/support/mounted.js';
import { dialectOf, type Language } from './languages.js';

/**
 * strace kills each helper's setVariable with SIGKILL right before its Nth system call on variables.json, for every N there is:
 * only those calls change what others see of it, so this is every state that a kill at any moment can leave between two calls.
 * 57 points with the interpreters this was written on: Node 9, Python 18, the shell with jq 15, its jq 6, the shell without 9.
 */
interface Sweep {
  readonly title: string;
  readonly language: Language;
  /** Kills whichever process comes to its Nth call, also a child. */
  readonly children: boolean;
  /** So many that the document takes several writes, and not more: every write is a point. */
  readonly members: number;
  /** States of the file that the points must show, or the sweep missed what it is for. */
  readonly shows: readonly State[];
}

/** A system call of a run: of those by this name, the nth of its process. */
interface Point {
  readonly call: string;
  readonly nth: number;
  /** As a log shows it, for messages. */
  readonly line: string;
}

/** `torn`: not a document; some first part of the text that was being written. */
type State = 'old' | 'new' | 'torn';

const SWEEPS: readonly Sweep[] = [
  { title: 'Node', language: 'node', children: false, members: 600, shows: ['old', 'new', 'torn'] },
  {
    title: 'Python',
    language: 'python',
    children: false,
    members: 600, // 8 KiB a write
    shows: ['old', 'new', 'torn'],
  },
  {
    title: 'Bash with jq',
    language: 'jq',
    children: false,
    members: 138, // 4 KiB, then a write a line
    shows: ['old', 'new', 'torn'],
  },
  {
    title: 'Bash whose jq is killed',
    language: 'jq',
    children: true,
    members: 138,
    shows: ['old'],
  },
  {
    title: 'Bash without jq',
    language: 'plain',
    children: false,
    members: 138,
    shows: ['old', 'new', 'torn'],
  },
];

/** Trees at once: what two processors take without making each point slow. */
const PARALLEL = 3;
const HELPERS = fileURLToPath(new URL('../../../helpers-legacy/', import.meta.url));

const options = needsFuse();

void t.test(
  'killed before any system call of setVariable: the last committed document is intact',
  options,
  async (t) => {
    t.ok(isOnPath('strace'), 'strace is here; otherwise run scripts/setup --only machine as root');
    const directory = mkdtempSync(join(tmpdir(), 'cronium-kills-'));
    t.teardown(() => rmSync(directory, { recursive: true }));
    await using mount = await TestMount.open();
    for (const sweep of SWEEPS) {
      const skip = dialectOf(sweep.language).program === null ? 'not installed here' : false;
      await t.test(sweep.title, { skip }, async (t) => {
        await new Kills(mount, directory, sweep).run(t);
      });
    }
  },
);

class Kills {
  readonly #mount: TestMount;
  readonly #directory: string;
  readonly #sweep: Sweep;
  readonly #old: Readonly<Record<string, string>>;
  readonly #new: Readonly<Record<string, string>>;

  constructor(mount: TestMount, directory: string, sweep: Sweep) {
    this.#mount = mount;
    this.#directory = directory;
    this.#sweep = sweep;
    const members = Array.from({ length: sweep.members }, (_, i) => [
      `key_${String(i).padStart(4, '0')}`,
      `value ${String(i).padStart(7, '0')}`,
    ]);
    this.#old = Object.fromEntries(members);
    this.#new = { ...this.#old, k: 'v' };
  }

  async run(t: Test): Promise<void> {
    const whole = await this.#writtenInPlainDirectory();
    const points = await this.#points(t);
    const seen: { readonly point: Point; readonly state: State }[] = [];
    const left = points.values();
    const worker = async () => {
      for (const point of left) seen.push({ point, state: await this.#killAt(t, point, whole) });
    };
    await Promise.all(Array.from({ length: PARALLEL }, worker));
    const count = (state: State) => seen.filter((each) => each.state === state).length;
    t.comment(
      `${points.length} points: ${count('old')} old, ${count('new')} new, ${count('torn')} torn`,
    );
    t.same(
      (['old', 'new', 'torn'] as const).filter((state) => count(state) > 0),
      this.#sweep.shows,
    );
    const torn = seen.find(({ state }) => state === 'torn');
    if (torn !== undefined) await this.#helperAfterKill(t, torn.point);
  }

  async #killAt(t: Test, point: Point, whole: string): Promise<State> {
    const runtime = this.#runtime();
    await using tree = await this.#tree(runtime);
    const { log } = await this.#run(tree, point);
    const at = `killed before ${point.line}`;
    t.match(log, KILLED, at);

    const { stdout: text } = await tree.bash('cat variables.json');
    const state = this.#stateOf(text);
    if (state === undefined) t.fail(`the file holds a document nobody wrote; ${at}`, { text });
    if (state === 'torn') t.ok(isStartOf(whole, text), `a first part of what was written; ${at}`);
    // A commit that was under way when its process died ends without it, and finish waits for it.
    const { warnings } = await tree.mounted.finish(true);
    const { stdout: atEnd } = await tree.bash('cat variables.json');
    if (state === 'torn') {
      t.equal(atEnd, text, `the end changes nothing; ${at}`);
      t.match(warnings, [/Failed to persist variable changes/], at);
    } else t.same(warnings, [], at);
    const kept = state === 'new' ? this.#new : this.#old;
    t.same(valuesOf(runtime), kept, `the server holds the ${state} document; ${at}`);
    t.ok(runtime.calls.length <= 1, `one commit or none; ${at}`);
    return state ?? 'torn';
  }

  /** Who comes after the kill reads nothing, as in a plain directory, but what it then leaves out is not deleted. */
  async #helperAfterKill(t: Test, point: Point): Promise<void> {
    const runtime = this.#runtime();
    await using tree = await this.#tree(runtime);
    await this.#run(tree, point);
    const ended = await this.#run(tree, undefined);
    t.equal(ended.code, 0, ended.stderr);
    await tree.mounted.finish(true);
    t.same(valuesOf(runtime), this.#new, 'a helper after the kill sets its key and loses no other');
  }

  #runtime(): FakeRuntime {
    const members = Object.entries(this.#old).map(([key, value]) => [key, JSON.stringify(value)]);
    return new FakeRuntime(Object.fromEntries(members) as Record<string, string>);
  }

  async #tree(runtime: FakeRuntime): Promise<TestTree> {
    const { helper, script } = dialectOf(this.#sweep.language);
    const files = [
      { path: `work/${helper}`, mode: 0o755, data: readFileSync(join(HELPERS, helper)) },
      { path: `work/${script}`, mode: 0o644, data: Buffer.from(this.#script) },
    ];
    return await this.#mount.tree(runtime, { files });
  }

  get #script(): string {
    const { language } = this.#sweep;
    const { prelude, render } = dialectOf(language);
    const step = render({ call: 'setVariable', with: ['k', 'v'] });
    // The helper without jq runs nothing but built-in commands once it is loaded.
    return `${prelude}${language === 'plain' ? 'PATH=/nowhere\n' : ''}${step}\n`;
  }

  /** Runs the script; before that call on variables.json its process is killed. `log`: one such call a line. */
  async #run(tree: TestTree, point: Point | undefined) {
    const { program, script } = dialectOf(this.#sweep.language);
    const logFile = mkdtempSync(join(this.#directory, 'run-'));
    const log = join(logFile, 'log');
    const args = ['-q', '-o', log, '-e', 'trace=all', '-e', 'signal=none', '-P', 'variables.json'];
    if (this.#sweep.children) args.unshift('-f');
    if (point !== undefined) args.push('-e', `inject=${point.call}:signal=KILL:when=${point.nth}`);
    const ended = await runIn(tree.work, 'strace', [...args, program ?? '', script]);
    return { ...ended, log: readFileSync(log, 'utf8') };
  }

  /** The calls on variables.json of a run that nobody disturbs: of the script's process, or of its child that reads. */
  async #points(t: Test): Promise<Point[]> {
    const runtime = this.#runtime();
    await using tree = await this.#tree(runtime);
    const { log, code, stderr } = await this.#run(tree, undefined);
    t.equal(code, 0, stderr);
    t.same(valuesOf(runtime), this.#new, 'undisturbed it commits');
    const child = /^(\d+ +)openat\(.*O_RDONLY/m.exec(log)?.[1] ?? '';
    const points: Point[] = [];
    for (const line of log.split('\n')) {
      if (!line.startsWith(child)) continue;
      const call = /^(\w+)\(/.exec(line.slice(child.length))?.[1];
      if (call === undefined) continue;
      // strace counts the calls of each name apart.
      const nth = points.filter((point) => point.call === call).length + 1;
      points.push({ call, nth, line });
    }
    return points;
  }

  /** The text that the undisturbed helper writes, from a plain directory: on the mount a merge may replace it. */
  async #writtenInPlainDirectory(): Promise<string> {
    const { helper, script, program } = dialectOf(this.#sweep.language);
    const plain = mkdtempSync(join(this.#directory, 'plain-'));
    writeFileSync(join(plain, helper), readFileSync(join(HELPERS, helper)));
    writeFileSync(join(plain, script), this.#script);
    writeFileSync(join(plain, 'variables.json'), JSON.stringify(this.#old, null, 2));
    await runIn(plain, program ?? '', [script]);
    return readFileSync(join(plain, 'variables.json'), 'utf8');
  }

  /** Undefined for a document that is neither. */
  #stateOf(text: string): State | undefined {
    let document: Record<string, unknown>;
    try {
      document = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return 'torn';
    }
    const { __updated__: _, ...members } = document;
    if (isDeepStrictEqual(members, this.#old)) return 'old';
    return isDeepStrictEqual(members, this.#new) ? 'new' : undefined;
  }
}

/** How a log shows the call that its process did not live to make. */
const KILLED = /^.* = \?$/m;

const valuesOf = (runtime: FakeRuntime): Record<string, unknown> =>
  Object.fromEntries([...runtime.values].map(([key, text]) => [key, JSON.parse(text)]));

/** Whether `text` is a first part of `whole`, whatever time stamp either carries. */
function isStartOf(whole: string, text: string): boolean {
  const stampAt = whole.indexOf('"__updated__": "') + '"__updated__": "'.length;
  return text.length < stampAt
    ? whole.startsWith(text)
    : text.startsWith(whole.slice(0, stampAt)) && text.length < whole.length;
}

function isOnPath(name: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Whether a history of concurrent calls on one variable could have come from a variable that does one call at a time, each at
 * some moment between its beginning and its end (Herlihy and Wing). The search is Wing and Gong's with Lowe's memory of
 * configurations seen before. Linearizability is local: a history of many variables is checked one variable at a time.
 */

/** What was asked. Texts of numbers, so that every call makes sense at any moment. */
export type Action =
  | { readonly do: 'get' }
  /** `ifVersion`: compare and set; 0 = only if there is none. */
  | { readonly do: 'set'; readonly text: string; readonly ifVersion?: number | undefined }
  | { readonly do: 'add'; readonly by: number }
  | { readonly do: 'delete'; readonly ifVersion?: number | undefined };

/** What was answered. `version` is that of the commit which wrote what is told, or that the call made. */
export type Answer =
  | { readonly is: 'value'; readonly version: number; readonly text: string }
  | { readonly is: 'done'; readonly version: number }
  | { readonly is: 'absent' }
  | { readonly is: 'conflict' };

export interface Event {
  readonly action: Action;
  /** Order of beginnings and ends, as seen by one clock. */
  readonly began: number;
  /** Infinity: nobody knows whether it was done; it may be at any later time, or never. */
  readonly ended: number;
  readonly answer?: Answer;
  /** For whoever reads a refused history. */
  readonly by?: string;
}

export type Verdict =
  | { readonly ok: true }
  /** `order`: the longest beginning that could be explained. `stuck`: what could come next, and does not fit. */
  | { readonly ok: false; readonly order: readonly Event[]; readonly stuck: readonly Event[] };

/**
 * The variable between two calls. A commit's version is not known while nobody was told; what is known is that it is higher
 * than `above`, since versions only grow.
 */
export interface State {
  /** Undefined = there is none. */
  readonly text: string | undefined;
  /** Of the commit that wrote `text`; undefined = not known yet. 0 of a variable that is not there. */
  readonly version: number | undefined;
  /** The highest version that is known to lie behind. */
  readonly above: number;
}

export const START: State = { text: undefined, version: 0, above: 0 };

/** Configurations looked at before a history counts as too tangled to judge: some seconds. */
const CONFIGURATIONS_MAX = 3_000_000;

/** @throws RangeError when the history is too tangled: use fewer clients, or shorter rounds */
export function check(history: readonly Event[]): Verdict {
  // A reading that nobody had the answer of says nothing.
  const telling = history.filter(
    ({ action, answer }) => action.do !== 'get' || answer !== undefined,
  );
  const events = telling.sort((a, b) => a.began - b.began);
  return new Search(events).run();
}

interface Step {
  readonly index: number;
  readonly state: State;
  readonly first: number;
  readonly changes: number;
}

/** Deletions of what is not there answer with any version. */
const isChange = ({ action, answer }: Event): boolean =>
  answer !== undefined && 'version' in answer && action.do !== 'get' && action.do !== 'delete';

const versionOf = (event: Event | undefined): number => {
  if (event?.answer === undefined || event.action.do === 'delete') return 0;
  return 'version' in event.answer ? event.answer.version : 0;
};

class Search {
  readonly #events: readonly Event[];
  readonly #taken: boolean[];
  #count = 0;
  /** Known changes by their versions: an order that any explanation has. */
  readonly #changes: readonly number[];
  readonly #seen = new Set<string>();

  constructor(events: readonly Event[]) {
    this.#events = events;
    this.#taken = events.map(() => false);
    const changes = events.flatMap((event, i) => (isChange(event) ? [i] : []));
    this.#changes = changes.sort((a, b) => versionOf(events[a]) - versionOf(events[b]));
  }

  run(): Verdict {
    const path: Step[] = [];
    let best: number[] = [];
    let state = START;
    /** Those with an answer: they must all be explained. */
    let left = this.#events.filter(({ answer }) => answer !== undefined).length;
    /** All before it are taken. */
    let first = 0;
    let next = 0;
    let changes = 0;
    while (left > 0) {
      const index = this.#candidate(next, first);
      if (index === undefined) {
        const last = path.pop();
        if (last === undefined) return this.#refused(best);
        this.#set(last.index, false);
        if (this.#events[last.index]?.answer !== undefined) left++;
        ({ state, first, changes } = last);
        next = last.index + 1;
        continue;
      }
      const event = this.#events[index] as Event;
      next = index + 1;
      // Versions only grow: a change that is left out here could not come later.
      const change = this.#changes[changes];
      const isLate =
        change !== undefined &&
        change !== index &&
        versionOf(this.#events[change]) <= versionOf(event);
      const before = path.at(-1);
      const after =
        isLate || (before !== undefined && this.#isVain(before.index, event))
          ? undefined
          : apply(state, event);
      if (after === undefined) continue;
      // Whether it was done makes no difference: then it was not.
      if (event.answer === undefined && after === state) continue;
      this.#set(index, true);
      if (!this.#isNew(after, first)) {
        this.#set(index, false);
        continue;
      }
      path.push({ index, state, first, changes });
      if (index === change) changes++;
      if (event.answer !== undefined) left--;
      if (path.length > best.length) best = path.map((step) => step.index);
      state = after;
      while (this.#taken[first] === true) first++;
      next = first;
    }
    return { ok: true };
  }

  /**
   * A change nobody has an answer of, and nobody sees before the next one: it may as well not have happened. A deletion sees:
   * what it answers depends on whether something was there.
   */
  #isVain(before: number, { action }: Event): boolean {
    return (
      this.#events[before]?.answer === undefined &&
      action.do === 'set' &&
      action.ifVersion === undefined
    );
  }

  #set(index: number, taken: boolean): void {
    this.#taken[index] = taken;
    this.#count += taken ? 1 : -1;
  }

  /** The next event, from `from`, that may come first of those left: it began before any of them ended. */
  #candidate(from: number, first: number): number | undefined {
    let earliestEnd = Number.POSITIVE_INFINITY;
    for (let i = first; i < this.#events.length; i++) {
      const event = this.#events[i] as Event;
      if (event.began > earliestEnd) return undefined;
      if (this.#taken[i] === true) continue;
      if (i >= from) return i;
      earliestEnd = Math.min(earliestEnd, event.ended);
    }
    return undefined;
  }

  /** Whether this configuration, what is taken and what that has made, was not looked at before. */
  #isNew({ text, version, above }: State, from: number): boolean {
    let first = from;
    while (this.#taken[first] === true) first++;
    let name = `${text}|${version}|${above}|${first}`;
    let rest = this.#count - first;
    for (let i = first; rest > 0; i++) {
      if (this.#taken[i] !== true) continue;
      name += `,${i}`;
      rest--;
    }
    if (this.#seen.has(name)) return false;
    this.#seen.add(name);
    if (this.#seen.size > CONFIGURATIONS_MAX)
      throw new RangeError(`${this.#events.length} calls are too tangled to be judged`);
    return true;
  }

  #refused(best: readonly number[]): Verdict {
    const order = best.map((i) => this.#events[i] as Event);
    const left = this.#events.filter((_, i) => !best.includes(i));
    const end = Math.min(...left.map(({ ended }) => ended));
    return { ok: false, order, stuck: left.filter(({ began }) => began <= end) };
  }
}

/** What the variable is after the call, or undefined when it could not have answered so. */
export function apply(state: State, { action, answer }: Event): State | undefined {
  switch (action.do) {
    case 'get':
      if (answer?.is === 'absent') return state.text === undefined ? state : undefined;
      return answer?.is === 'value' ? seen(state, answer) : undefined;
    case 'set':
      return guarded(state, action.ifVersion, answer, (known) =>
        written(known, action.text, answer),
      );
    case 'delete':
      return guarded(state, action.ifVersion, answer, (known) => {
        // Nothing is committed, and the version told is nobody's.
        if (known.text === undefined) return known;
        return written(known, undefined, answer);
      });
    case 'add': {
      const text = String(Number(state.text ?? '0') + action.by);
      if (answer?.is === 'value' && answer.text !== text) return undefined;
      return written(state, text, answer);
    }
  }
}

/** Version and text of what is there: they are its own. */
function seen(state: State, { version, text }: { version: number; text: string }) {
  if (state.text !== text) return undefined;
  return at(state, version);
}

/** The state if its version is `version`, which it may say for the first time. */
function at(state: State, version: number): State | undefined {
  if (state.version !== undefined) return state.version === version ? state : undefined;
  return version > state.above ? { ...state, version, above: version } : undefined;
}

function written(
  { above }: State,
  text: string | undefined,
  answer: Answer | undefined,
): State | undefined {
  const version = answer !== undefined && 'version' in answer ? answer.version : undefined;
  if (version !== undefined && version <= above) return undefined;
  const known = version ?? above;
  return text === undefined ? { text, version: 0, above: known } : { text, version, above: known };
}

/** With `ifVersion` a call happens at that version only, and is refused at any other. */
function guarded(
  state: State,
  ifVersion: number | undefined,
  answer: Answer | undefined,
  happens: (state: State) => State | undefined,
): State | undefined {
  if (ifVersion === undefined) return answer?.is === 'conflict' ? undefined : happens(state);
  // Which version it is may not be known: then it is another one, of which there are many.
  if (answer?.is === 'conflict') return state.version === ifVersion ? undefined : state;
  const known = at(state, ifVersion);
  return known && happens(known);
}

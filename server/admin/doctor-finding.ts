/** `bad`: cronium does not work, or not safely, until somebody does something. `warn`: it works, but less well or not for long. */
export type Level = 'ok' | 'warn' | 'bad';

/** What one check found, and what to do about it. */
export interface Finding {
  readonly check: string;
  readonly level: Level;
  readonly found: string;
  /** A command where there is one. */
  readonly next?: string;
}

export const ok = (check: string, found: string, next?: string): Finding => ({
  check,
  level: 'ok',
  found,
  ...(next !== undefined && { next }),
});

export const warn = (check: string, found: string, next: string): Finding => ({
  check,
  level: 'warn',
  found,
  next,
});

export const bad = (check: string, found: string, next: string): Finding => ({
  check,
  level: 'bad',
  found,
  next,
});

/** The level of a figure that may be low; `limits` are the least that is no warning, and the least that works. */
export function levelOf(value: number, limits: { readonly warn: number; readonly bad: number }) {
  if (value < limits.bad) return 'bad';
  return value < limits.warn ? 'warn' : 'ok';
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1.5 GiB`. */
export function size(bytes: number): string {
  let [value, unit] = [bytes, 0];
  for (; value >= 1024 && unit < UNITS.length - 1; unit++) value /= 1024;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** A path as one word of a shell's command line. */
export const quoted = (path: string): string =>
  /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;

import { RETRY_AFTER_MS_MAX } from './limits.js';

/**
 * The one error type that crosses a process border, and the table that gives it an errno at the last hop.
 * Codes travel on the wire: append only, never rename.
 */
export const CODES = {
  not_found: { errno: 2, name: 'ENOENT', retry: false },
  interrupted: { errno: 4, name: 'EINTR', retry: true },
  internal: { errno: 5, name: 'EIO', retry: false },
  rate_limited: { errno: 11, name: 'EAGAIN', retry: true },
  denied: { errno: 13, name: 'EACCES', retry: false },
  busy: { errno: 16, name: 'EBUSY', retry: true },
  invalid: { errno: 22, name: 'EINVAL', retry: false },
  too_large: { errno: 27, name: 'EFBIG', retry: false },
  no_space: { errno: 28, name: 'ENOSPC', retry: false },
  read_only: { errno: 30, name: 'EROFS', retry: false },
  timeout: { errno: 110, name: 'ETIMEDOUT', retry: true },
  unavailable: { errno: 110, name: 'ETIMEDOUT', retry: true },
  conflict: { errno: 116, name: 'ESTALE', retry: true },
  quota: { errno: 122, name: 'EDQUOT', retry: false },
  token_expired: { errno: 127, name: 'EKEYEXPIRED', retry: false },
} as const satisfies Record<string, { errno: number; name: string; retry: boolean }>;

export type Code = keyof typeof CODES;

export interface BridgeErrorOptions extends ErrorOptions {
  /** Nothing was done, and this many milliseconds from now it is worth trying again. */
  readonly retryAfterMs?: number;
}

/** `message` says what happened and what to do next; programs read `code`; `cause` keeps the original. */
export class BridgeError extends Error {
  readonly code: Code;
  /** A whole number up to RETRY_AFTER_MS_MAX. It travels; with it comes the promise that the call had no effect. */
  readonly retryAfterMs: number | undefined = undefined;

  constructor(code: Code, message: string, options?: BridgeErrorOptions) {
    super(message, options);
    this.name = 'BridgeError';
    this.code = code;
    const after = options?.retryAfterMs ?? Number.NaN;
    if (!Number.isNaN(after))
      this.retryAfterMs = Math.min(Math.max(0, Math.ceil(after)), RETRY_AFTER_MS_MAX);
  }
}

export const isCode = (value: unknown): value is Code =>
  typeof value === 'string' && Object.hasOwn(CODES, value);

/** Whatever was thrown, as a BridgeError: what we did not foresee becomes `internal`. */
export function asBridgeError(error: unknown): BridgeError {
  if (error instanceof BridgeError) return error;
  if (errnoCode(error) === 'ENOSPC')
    return new BridgeError('no_space', 'the disk is full: free some space, then try again', {
      cause: error,
    });
  const text = error instanceof Error ? error.message : String(error);
  return new BridgeError('internal', `unexpected: ${text}`, { cause: error });
}

/** `error` as the reason of a WebSocket close frame, which has room for 123 bytes (RFC 6455 5.5). */
export const closeReason = (error: BridgeError): string =>
  Buffer.from(error.message).subarray(0, 117).toString(); // and 3 more when a character was cut

/** The positive errno a system call reports for `error`. */
export const errnoOf = (error: unknown): number => CODES[asBridgeError(error).code].errno;

/** `ENOENT`, `ECONNREFUSED`, … of a Node system error or of anything in its chain of causes. */
export function errnoCode(error: unknown): string | undefined {
  for (let e = error, depth = 0; e instanceof Error && depth < 8; e = e.cause, depth++) {
    if ('code' in e && typeof e.code === 'string') {
      if (/^E[A-Z0-9]+$/.test(e.code)) return e.code;
    }
    // LevelDB reports a full disk as text only.
    if (/No space left on device/i.test(e.message)) return 'ENOSPC';
  }
  return undefined;
}

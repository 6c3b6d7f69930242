/** Limits both ends of a link agree on. Each says why that number. */

/** One WebSocket message. A namespace's whole document with its envelope fits; anything larger is a mistake or an attack. */
export const MESSAGE_BYTES_MAX = 32 * 1024 * 1024;

/**
 * A namespace's variables together, each counted with its overhead in a message: what one message can carry, because an
 * execution is given all of them when it starts.
 */
export const NAMESPACE_BYTES_MAX = 24 * 1024 * 1024;
export const VARIABLE_OVERHEAD_BYTES = 100;

/** One variable's or output's JSON text: what the legacy runner accepted for a whole file. */
export const VALUE_BYTES_MAX = 10 * 1024 * 1024;

/** Members one commit may set or delete; a legacy document of 100,000 members is the largest seen in the field. */
export const COMMIT_MEMBERS_MAX = 100_000;

/** A variable's name: long enough for any generated key, short enough for one file name in `vars/`. */
export const KEY_BYTES_MAX = 255;

/** Requests one side may leave unanswered on a link; more are refused with `rate_limited` instead of queued. */
export const PENDING_CALLS_MAX = 10_000;

/** How long a request may take when its caller does not say; below the patience of someone at a terminal. */
export const CALL_DEADLINE_MS = 30_000;

/** Longest deadline a peer may ask for: a run of a week. Below 2^31, the largest delay a timer can have. */
export const CALL_DEADLINE_MS_MAX = 7 * 24 * 60 * 60 * 1000;

/** Limits both ends of a link agree on. Each says why that number. */

/** One WebSocket message. A namespace's whole document with its envelope fits; anything larger is a mistake or an attack. */
export const MESSAGE_BYTES_MAX = 32 * 1024 * 1024;

/**
 * Frames of one turn of the event loop go out as one message, which is sent as soon as it has this size: a TLS record is
 * 16 KiB, so beyond a few of them a larger message saves nothing and only keeps its reader waiting.
 */
export const BATCH_BYTES = 64 * 1024;

/** Time the other end has to agree to the end of a connection before it is cut; an honest one takes a round trip. */
export const CLOSE_MS = 2_000;

/** Frames in one message. A batch of the smallest ones that occur, about 60 bytes, reaches its size no later. */
export const MESSAGE_FRAMES_MAX = 1024;

/**
 * Values in one message, each key and each array counted: a namespace that is full of the smallest variables comes as 11 for
 * each 100 bytes, 2.8 million. Decoded they take about 150 MB for a moment.
 */
export const MESSAGE_VALUES_MAX = 3_000_000;

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

/**
 * Bytes of the calls that one end serves at once for the other; what comes on top is refused with `rate_limited`. Room
 * for the largest message and as much again, so a call of any size is served when nothing else is under way.
 */
export const SERVED_BYTES_MAX = 2 * MESSAGE_BYTES_MAX;

/** What an end says that is too busy: as long as some of what it does takes. */
export const BUSY_RETRY_MS = 100;

/** Longest hint of when to try again: an hour is more than any rate or quota of ours is counted over. */
export const RETRY_AFTER_MS_MAX = 60 * 60 * 1000;

/** An error's message; a longer one is cut off. */
export const FAILURE_CHARACTERS_MAX = 8192;

/** How long a request may take when its caller does not say; below the patience of someone at a terminal. */
export const CALL_DEADLINE_MS = 30_000;

/** Longest deadline a peer may ask for: a run of a week. Below 2^31, the largest delay a timer can have. */
export const CALL_DEADLINE_MS_MAX = 7 * 24 * 60 * 60 * 1000;

import { z } from 'zod';
import { RateSettings } from './services/rate-limits.js';

export { RateSettings };

/** Where the key comes from that wraps all others: a file of mode 0600, or what a command prints. */
const MasterKey = z.union([
  z.strictObject({ file: z.string() }),
  z.strictObject({ command: z.string() }),
]);

/** What the server process and its supervisor are told at start: one JSON argument, made by `cronium up`. */
export const ServerConfig = z.strictObject({
  software: z.string(),
  listen: z.strictObject({ host: z.string(), port: z.int().min(0).max(65535) }),
  /** The unix socket for peers on this machine. */
  socket: z.string(),
  database: z.string(),
  keyring: z.string(),
  masterKey: MasterKey,
  /** Opens a damaged store for reading only. */
  damaged: z.boolean(),
  tokenKey: z.string(),
  /** What differs from the default rates. */
  rates: RateSettings.optional(),
  tls: z.strictObject({ ca: z.string(), cert: z.string(), key: z.string() }),
  logLevel: z.string(),
  /** Where the supervisor marks the server process. */
  processFile: z.string(),
  /** How often the supervisor has started it again. */
  restarts: z.int().min(0).default(0),
});
export type ServerConfig = z.infer<typeof ServerConfig>;

/** Said over Node's IPC by the server to its supervisor, and by that, all but `alive`, to whoever started it. */
export const ServerReport = z.discriminatedUnion('state', [
  /** It is busy with what takes its time: the clock starts anew. */
  z.strictObject({ state: z.literal('starting') }),
  z.strictObject({ state: z.literal('ready'), port: z.int() }),
  /** Once a second while it serves. */
  z.strictObject({ state: z.literal('alive') }),
  z.strictObject({ state: z.literal('failed'), message: z.string() }),
]);
export type ServerReport = z.infer<typeof ServerReport>;

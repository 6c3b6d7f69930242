import { z } from 'zod';

/** What the server process is told at start: one JSON argument, made by `cronium up`. */
export const ServerConfig = z.strictObject({
  software: z.string(),
  listen: z.strictObject({ host: z.string(), port: z.int().min(0).max(65535) }),
  database: z.string(),
  keyring: z.string(),
  masterKey: z.string(),
  tokenKey: z.string(),
  tls: z.strictObject({ ca: z.string(), cert: z.string(), key: z.string() }),
  logLevel: z.string(),
});
export type ServerConfig = z.infer<typeof ServerConfig>;

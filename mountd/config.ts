import { z } from 'zod';
import { DriverName } from '#bridge/wire/control.js';

/** What the serving process and its supervisor are told at start: one JSON argument, made by `cronium up`. */
export const MountdConfig = z.strictObject({
  software: z.string(),
  /** Marks this mountd's containers. */
  instance: z.string(),
  driver: DriverName.default('kernel'),
  mountPoint: z.string(),
  backing: z.string(),
  controlSocket: z.string(),
  /** What is known of earlier lives. */
  lifeFile: z.string(),
  /** Names the processes of this life. */
  servingFile: z.string(),
  /** Where whoever stops mountd finds its supervisor; written by one that another's death has called. */
  supervisorFile: z.string(),
  /** What runs here, for a process that takes over. */
  runs: z.string(),
  /** Prepared executions, for the same. */
  prepared: z.string(),
  /** Docker's name for our volume plugin, and its socket. Undefined: there is none. */
  volumePlugin: z.strictObject({ name: z.string(), socket: z.string() }).optional(),
  dockerSocket: z.string(),
  hostsFile: z.string(),
  helpers: z.string(),
  /** The system calls that scripts may make, as Docker's profiles are written. */
  seccompFile: z.string(),
  /** `socketPath`: tried first. */
  server: z.strictObject({ host: z.string(), port: z.int(), socketPath: z.string().optional() }),
  tls: z.strictObject({ ca: z.string(), cert: z.string(), key: z.string() }),
  uid: z.int(),
  gid: z.int(),
  /** How many containers are started before anybody asks for them, at most. */
  warmContainers: z.int().min(0),
  logLevel: z.string(),
});
export type MountdConfig = z.infer<typeof MountdConfig>;

/** Said by the serving process to its supervisor, once a second. */
export const Beat = z.strictObject({ state: z.literal('alive') });

/** Said by the supervisor to a process that stands by: serve now. */
export const Go = z.strictObject({ state: z.literal('go'), takeOver: z.boolean() });
export type Go = z.infer<typeof Go>;

/** Said by the serving process: another supervisor, which it will call, takes this one's place. */
export const Replaced = z.strictObject({ state: z.literal('replaced') });
export type Replaced = z.infer<typeof Replaced>;

/** Said by both processes to whoever started them, over Node's IPC. */
export const StartReport = z.discriminatedUnion('state', [
  z.strictObject({ state: z.literal('ready') }),
  z.strictObject({ state: z.literal('failed'), message: z.string() }),
]);
export type Beat = z.infer<typeof Beat>;
export type StartReport = z.infer<typeof StartReport>;

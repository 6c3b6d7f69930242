/**
 * What connects a Volume with a kernel. A driver starts when it is made, and sets `volume.kernel` to what can be told to the
 * kernel's caches. docs/drivers.md compares the two.
 */
export interface Driver {
  /** Resolves when the kernel's first request was answered: the mount works from then on. */
  readonly ready: Promise<void>;
  /** Resolves once, when the mount is gone or never came to be: undefined when it was unmounted, else the reason. */
  readonly ended: Promise<Error | undefined>;
  /** Answers nothing any more. Whoever mounted unmounts: a driver only what it mounted itself. */
  close(): Promise<void> | void;
}

export interface DriverLog {
  info(context: object, message: string): void;
  warn(context: object, message: string): void;
}

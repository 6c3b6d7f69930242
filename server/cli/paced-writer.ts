/** What can be told to wait. */
interface Source {
  pause(): void;
  resume(): void;
}

/** Writes to the terminal's streams: a reader that is slow makes the source pause, and not our memory grow; one that has gone is none. */
export class PacedWriter {
  readonly #source: Source;
  /** Streams that wait for their reader. */
  readonly #full = new Set<NodeJS.WriteStream>();

  constructor(source: Source) {
    this.#source = source;
  }

  write(target: NodeJS.WriteStream, data: string | Uint8Array): void {
    if (target.write(data) || target.destroyed || this.#full.has(target)) return;
    // What was read from the source before the pause still comes here.
    this.#full.add(target);
    this.#source.pause();
    const resume = () => {
      this.#full.delete(target);
      target.off('drain', resume).off('close', resume);
      if (this.#full.size === 0) this.#source.resume();
    };
    target.on('drain', resume).on('close', resume);
  }
}

/** On whose behalf a service changes something. */
export interface Origin {
  /** The execution's id, or `operator:NAME`. Stored with what was changed; its own channel is not told about it again. */
  readonly by: string;
  /** Given to the store with the change, for the audit log. */
  readonly note?: unknown;
}

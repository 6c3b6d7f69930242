import { createHmac, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { writeDurably } from './durable-file.js';
import {
  type DataKey,
  encodeKeyring,
  KEY_ID_MAX,
  type KeyringState,
  makeNamespace,
  type Namespace,
  opensKeyring,
  readKeyringFile,
  rewrapKeyring,
  unwrapKeyring,
  wrap,
} from './keyring-file.js';
import { MASTER_KEY_BYTES, type MasterKeySource } from './master-key.js';
import { NameCache } from './name-cache.js';
import { SYSTEM } from './store.js';

const KEY_BYTES = 32;
/** Of a hidden name: two names of one namespace meet with a chance of 2^-128 per pair. */
const HIDDEN_BYTES = 16;

export interface KeyringFiles {
  readonly keyring: string;
  readonly master: MasterKeySource;
}

/** For metrics and `keys list`. */
export interface KeyringStatus {
  readonly namespaces: number;
  readonly dataKeys: number;
  /** The oldest data key that still encrypts; undefined is impossible while SYSTEM has one. */
  readonly oldestCurrentKeyAt: string;
  /** By the busiest key since this process started. */
  readonly encryptionsMax: number;
  readonly encryptions: number;
  readonly shredding: number;
}

/**
 * The keys of an encrypted store. Each namespace has one that hides names in keys, and data keys by number: the newest
 * encrypts, all decrypt. They rest wrapped by the master key in a file of their own, which is replaced as a whole: a
 * database would keep old versions of it around, and an erased key must be gone. One process only writes the file.
 */
export class Keyring {
  readonly #path: string | undefined;
  readonly #source: MasterKeySource;
  readonly #hidden = new NameCache();
  readonly #byName = new Map<string, Namespace>();
  /** Also those of data keys that rotation dropped from the file: readers of an older snapshot still need them. */
  readonly #keys = new Map<number, DataKey>();
  readonly #shreddedIds = new Set<number>();
  #master: Buffer;
  #state: KeyringState;
  #nextSerial: number;

  private constructor(
    path: string | undefined,
    source: MasterKeySource,
    master: Buffer,
    state: KeyringState,
  ) {
    this.#path = path;
    this.#source = source;
    this.#master = master;
    this.#state = state;
    this.#nextSerial = state.namespaces.size;
    for (const { keys } of state.namespaces.values())
      for (const key of keys) this.#keys.set(key.id, key);
    for (const { keyIds } of state.shredding) for (const id of keyIds) this.#shreddedIds.add(id);
  }

  /**
   * Reads the keyring, or creates it (and the master key) when the store is new (`fresh`). Finishes or undoes a rotation of
   * the master key that was interrupted.
   * @throws BridgeError `denied` for a wrong master key or one that others can read, `not_found` for a missing file of an
   * existing store, `internal` for a damaged one, `invalid` for another format, `unavailable` when a key command fails.
   */
  static open({ keyring: path, master: source }: KeyringFiles, fresh: boolean): Keyring {
    if (!existsSync(path)) {
      if (!fresh) throw missing(path, 'the keyring');
      source.create();
      writeKeyring(path, newState(source.read()));
    }
    const file = readKeyringFile(path);
    let master = source.read();
    if (opensKeyring(master, file)) source.discard();
    else {
      const next = source.pending();
      if (next === undefined || !opensKeyring(next, file))
        throw new BridgeError(
          'denied',
          `${source.name} does not open ${path}: put the right one back`,
        );
      source.adopt();
      master = next;
    }
    return new Keyring(path, source, master, unwrapKeyring(path, file, master));
  }

  /** A keyring that exists only in this process, for tests. */
  static ephemeral(): Keyring {
    const master = randomBytes(MASTER_KEY_BYTES);
    const source: MasterKeySource = {
      name: 'the master key',
      read: () => master,
      create: () => {},
      pending: () => undefined,
      prepare: () => randomBytes(MASTER_KEY_BYTES),
      adopt: () => {},
      discard: () => {},
    };
    return new Keyring(undefined, source, master, newState(master));
  }

  /** 32 bytes for the tags of the store below; the same as long as the store lives. */
  get integrityKey(): Buffer {
    return this.#state.integrity.key;
  }

  get families(): ReadonlySet<string> {
    return this.#state.families;
  }

  /** The keys of a namespace, or undefined when nothing was ever written to it. @throws BridgeError `unavailable` while it is erased */
  find(namespace: string): Namespace | undefined {
    const known = this.#byName.get(namespace);
    if (known !== undefined) return known;
    const id = this.hideNamespace(namespace);
    const found = this.#state.namespaces.get(id);
    if (found !== undefined) this.#byName.set(namespace, found);
    else if (this.#state.shredding.some((one) => one.namespace === id)) throw beingErased();
    return found;
  }

  /** Makes what is missing and writes the file, once. @throws BridgeError `unavailable` for a namespace that is being erased */
  ensure(namespaces: Iterable<string>, families: Iterable<string>): void {
    let { nextKeyId } = this.#state;
    const made: Namespace[] = [];
    for (const name of new Set(namespaces)) {
      if (this.find(name) !== undefined) continue;
      const id = this.hideNamespace(name);
      made.push(newNamespace(id, this.#nextSerial + made.length, this.#master, nextKeyId++));
    }
    const all = new Set([...this.#state.families, ...families]);
    if (made.length === 0 && all.size === this.#state.families.size) return;
    this.#change({
      ...this.#state,
      nextKeyId,
      families: all,
      namespaces: new Map([
        ...this.#state.namespaces,
        ...made.map((namespace) => [namespace.id, namespace] as const),
      ]),
    });
    this.#nextSerial += made.length;
  }

  key(id: number): DataKey | undefined {
    return this.#keys.get(id);
  }

  /** Its namespace was erased, in this process's time or before and not to the end. */
  isShredded(keyId: number): boolean {
    return this.#shreddedIds.has(keyId);
  }

  /** 22 characters that stand for a namespace in stored keys. */
  hideNamespace(namespace: string): string {
    return this.#hide(this.#state.names.key, '', namespace);
  }

  /**
   * 22 characters that stand for `name` in stored keys of a namespace: equal names stay equal, nothing else shows. In a
   * namespace without keys it is a name that no record has.
   */
  hide(namespace: Namespace | undefined, name: string): string {
    return namespace === undefined
      ? this.#hide(this.#state.names.key, 'nowhere', name)
      : this.#hide(namespace.names.key, `${namespace.serial}`, name);
  }

  /** What a commit's id is to the store below. */
  hideCommitId(id: string): string {
    return hmac(this.#state.names.key, `commit\0${id}`);
  }

  /** A new data key for one namespace, or for all: it encrypts from now on. @throws BridgeError `not_found` */
  rotate(namespace?: string): void {
    const one = namespace === undefined ? undefined : this.find(namespace);
    if (namespace !== undefined && one === undefined)
      throw new BridgeError(
        'not_found',
        `namespace ${namespace} has no keys: nothing is stored in it`,
      );
    let { nextKeyId } = this.#state;
    const namespaces = new Map(this.#state.namespaces);
    for (const { id, serial, names, keys } of one === undefined ? [...namespaces.values()] : [one])
      namespaces.set(
        id,
        makeNamespace(id, serial, names, [...keys, newDataKey(id, this.#master, nextKeyId++)]),
      );
    this.#change({ ...this.#state, nextKeyId, namespaces });
  }

  /** The data keys that encrypt now, by namespace. */
  currentKeyIds(): ReadonlyMap<string, number> {
    return new Map([...this.#state.namespaces.values()].map(({ id, current }) => [id, current.id]));
  }

  /** Drops the keys before these from the file: no record may need them any more. Returns how many. */
  dropKeysBefore(currentIds: ReadonlyMap<string, number>): number {
    let dropped = 0;
    const namespaces = new Map(this.#state.namespaces);
    for (const { id, serial, names, keys } of this.#state.namespaces.values()) {
      const kept = keys.filter((key) => key.id >= (currentIds.get(id) ?? 0));
      if (kept.length === keys.length || kept.length === 0) continue;
      dropped += keys.length - kept.length;
      namespaces.set(id, makeNamespace(id, serial, names, kept));
    }
    if (dropped > 0) this.#change({ ...this.#state, namespaces });
    return dropped;
  }

  /**
   * Wraps everything by the next master key. Can be interrupted at any point: `open` finishes or undoes it.
   * @throws BridgeError `invalid` when a command still prints the old key, `no_space`, …
   */
  rotateMaster(): void {
    const left = this.#source.pending();
    if (left !== undefined) {
      // An earlier rotation failed half-way. The file is wrapped by our key or, if only the last fsync failed, by that one.
      if (left.equals(this.#master)) this.#source.adopt();
      else {
        this.#write(this.#state);
        this.#source.discard();
      }
    }
    const next = this.#source.prepare(this.#master);
    this.#change(rewrapKeyring(this.#state, next));
    this.#master = next;
    this.#source.adopt();
  }

  /**
   * Destroys the keys of a namespace: once the file is written nobody can read its records, wherever copies of them are.
   * Until `shredded` its name cannot be used. Does nothing for a namespace without keys, and when repeated.
   * Returns the hidden name under which its records lie.
   */
  shred(namespace: string): string {
    if (namespace === SYSTEM)
      throw new BridgeError('invalid', `the server's own namespace cannot be erased`);
    const id = this.hideNamespace(namespace);
    const found = this.#state.namespaces.get(id);
    if (found === undefined) return id;
    const keyIds = [...this.#keys.values()].filter((key) => key.namespace === id).map((k) => k.id);
    const namespaces = new Map(this.#state.namespaces);
    namespaces.delete(id);
    const shredding = [...this.#state.shredding, { namespace: id, keyIds }];
    this.#change({ ...this.#state, namespaces, shredding });
    for (const keyId of keyIds) {
      this.#keys.get(keyId)?.key.fill(0);
      this.#keys.delete(keyId);
      this.#shreddedIds.add(keyId);
    }
    found.names.key.fill(0);
    this.#hidden.clear();
    return id;
  }

  /** Hidden names of the namespaces whose records are still to be deleted. */
  get shredding(): readonly string[] {
    return this.#state.shredding.map(({ namespace }) => namespace);
  }

  /** All records of the namespace with that hidden name are deleted: its name may be used again. */
  shredded(id: string): void {
    const shredding = this.#state.shredding.filter(({ namespace }) => namespace !== id);
    if (shredding.length < this.#state.shredding.length)
      this.#change({ ...this.#state, shredding });
  }

  status(): KeyringStatus {
    const namespaces = [...this.#state.namespaces.values()];
    const keys = namespaces.flatMap((namespace) => namespace.keys);
    return {
      namespaces: namespaces.length,
      dataKeys: keys.length,
      oldestCurrentKeyAt: namespaces.map(({ current }) => current.createdAt).sort()[0] ?? '',
      encryptionsMax: keys.reduce((most, { encryptions }) => Math.max(most, encryptions), 0),
      encryptions: [...this.#keys.values()].reduce((sum, { encryptions }) => sum + encryptions, 0),
      shredding: this.#state.shredding.length,
    };
  }

  #hide(key: Buffer, space: string, name: string): string {
    const cached = `${space}\0${name}`;
    let hidden = this.#hidden.get(cached);
    if (hidden === undefined) {
      hidden = hmac(key, space === 'nowhere' ? `nowhere\0${name}` : name);
      this.#hidden.set(cached, hidden);
    }
    return hidden;
  }

  /** Nothing changes here unless the file has changed. */
  #change(state: KeyringState): void {
    if (state.nextKeyId > KEY_ID_MAX)
      throw new BridgeError('internal', 'the keyring has given all its key numbers');
    this.#write(state);
    this.#state = state;
    this.#byName.clear();
    for (const { keys } of state.namespaces.values())
      for (const key of keys) {
        const before = this.#keys.get(key.id);
        if (before !== undefined) key.encryptions = before.encryptions;
        this.#keys.set(key.id, key);
      }
  }

  #write(state: KeyringState): void {
    if (this.#path !== undefined) writeKeyring(this.#path, state);
  }
}

function writeKeyring(path: string, state: KeyringState): void {
  try {
    writeDurably(path, encodeKeyring(state));
  } catch (cause) {
    const code = errnoCode(cause);
    throw new BridgeError(
      code === 'ENOSPC' ? 'no_space' : 'unavailable',
      `cannot write the keyring ${path} (${code ?? 'unknown error'}): nothing was changed`,
      { cause },
    );
  }
}

const hmac = (key: Buffer, text: string): string =>
  createHmac('sha256', key).update(text).digest().subarray(0, HIDDEN_BYTES).toString('base64url');

function newState(master: Buffer): KeyringState {
  const names = wrap(master, randomBytes(KEY_BYTES));
  const system = newNamespace(hmac(names.key, SYSTEM), 0, master, 1);
  return {
    names,
    integrity: wrap(master, randomBytes(KEY_BYTES)),
    nextKeyId: 2,
    families: new Set(),
    namespaces: new Map([[system.id, system]]),
    shredding: [],
  };
}

const newNamespace = (id: string, serial: number, master: Buffer, keyId: number): Namespace =>
  makeNamespace(id, serial, wrap(master, randomBytes(KEY_BYTES)), [newDataKey(id, master, keyId)]);

const newDataKey = (namespace: string, master: Buffer, id: number): DataKey => ({
  ...wrap(master, randomBytes(KEY_BYTES)),
  id,
  createdAt: new Date().toISOString(),
  encryptions: 0,
  namespace,
});

const beingErased = () =>
  new BridgeError('unavailable', 'this namespace is being erased: try again when that is done');

const missing = (file: string, what: string) =>
  new BridgeError(
    'not_found',
    `${what} ${file} is missing, and without it the store cannot be read: restore it from a backup`,
  );

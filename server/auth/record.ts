import { Packr } from 'msgpackr';

// As server/services/record.ts, which this layer may not import.
const packr = new Packr({ useRecords: false, moreTypes: false });

export const packRecord = (record: Readonly<Record<string, unknown>>): Uint8Array =>
  packr.pack(record);

/** Only for bytes of our own store, which authenticates them: the caller names the type it wrote. */
export const unpackRecord = <T>(bytes: Uint8Array): T => packr.unpack(bytes) as T;

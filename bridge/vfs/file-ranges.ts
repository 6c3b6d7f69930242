import { EINVAL, EOPNOTSUPP } from './fs-error.js';
import type { Draft, OpenFile, RegularFile } from './regular-file.js';

/** fallocate(2) modes of linux/falloc.h. Inserting and collapsing ranges is refused, as tmpfs does. */
const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_PUNCH_HOLE = 0x02;
const FALLOC_FL_ZERO_RANGE = 0x10;

/** One call copies this much at most; copy_file_range(2) may be short, and its callers go on. */
const COPY_BYTES_MAX = 1024 * 1024;

/** A file and the handle it was opened by, as a request names them; the handle is unknown after a restart. */
export interface FileAndHandle {
  readonly file: RegularFile;
  readonly handle: OpenFile | undefined;
}

/**
 * fallocate(2). A promise when the host has to make a hole. @throws FsError EOPNOTSUPP, EINVAL, ENOSPC, EFBIG
 */
export function fallocate(
  { file, handle }: FileAndHandle,
  mode: number,
  offset: number,
  length: number,
): Promise<void> | undefined {
  if (length <= 0) throw EINVAL;
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0: {
      const before = file.size;
      file.reserve(offset, length, keepSize);
      if (file.size !== before && handle?.draft !== undefined)
        truncated(handle, handle.draft, file.size);
      return undefined;
    }
    case FALLOC_FL_PUNCH_HOLE:
      if (!keepSize) throw EOPNOTSUPP;
      return zero({ file, handle }, offset, length);
    case FALLOC_FL_ZERO_RANGE: {
      file.reserve(offset, length, keepSize);
      return zero({ file, handle }, offset, length).then(() =>
        file.reserve(offset, length, keepSize),
      );
    }
    default:
      throw EOPNOTSUPP;
  }
}

/** The range reads as zeros from now on, and a document's draft knows. */
async function zero({ file, handle }: FileAndHandle, offset: number, length: number) {
  await file.punch(offset, length);
  const zeroed = Math.min(length, file.size - offset);
  // A document is bounded in size, and so is this.
  if (zeroed <= 0 || file.document === undefined || handle === undefined) return;
  handle.wrote = true;
  if (handle.draft !== undefined) wrote(handle, handle.draft, Buffer.alloc(zeroed), offset);
}

/** A document's draft follows what is done through its handle, and so does the journal. */
export function wrote(
  { id, file }: OpenFile,
  draft: Draft,
  data: Uint8Array,
  offset: number,
): void {
  draft.wrote(data, offset);
  const { journal } = file.tree;
  if (journal !== undefined && data.byteLength > 0)
    journal.note(['W', id, offset, Buffer.from(data).toString('base64')]);
}

export function truncated({ id, file }: OpenFile, draft: Draft, size: number): void {
  draft.truncated(size);
  file.tree.journal?.note(['L', id, size]);
}

/**
 * copy_file_range(2) within one tree; returns the count, short for a large range. `write` is how bytes get into the target.
 */
export function copyRange(
  source: RegularFile,
  offset: number,
  length: number,
  write: (data: Uint8Array) => number,
): number {
  const count = Math.min(length, COPY_BYTES_MAX, source.size - offset);
  if (count <= 0) return 0;
  const buffer = Buffer.allocUnsafe(count);
  source.read(buffer, 0, count, offset);
  return write(buffer);
}

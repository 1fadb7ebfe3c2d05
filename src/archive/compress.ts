import { compressZstd } from '../native/zstd-stream.ts';

/** RAM of guests is mostly zeros and code, and networks are slower than level 1. */
const level = 1;

/** Entries of an archive, as one zstd frame; frames may follow each other. */
export function compressEntries(entries: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  return compressZstd(entries, level);
}

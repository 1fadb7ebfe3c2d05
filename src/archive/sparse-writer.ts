import type { Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';

const pageBytes = 4096;
const bufferBytes = 1024 * 1024;
const zeros = Buffer.alloc(pageBytes);

/** Writes a file from its beginning to its end, with pages of zeros as holes: so RAM lies in a store. */
export class SparseWriter {
  readonly #file: FileHandle;
  readonly #hash: Hash | null;
  readonly #buffer = Buffer.allocUnsafe(bufferBytes);
  #filledBytes = 0;
  #offset = 0;

  /** @param hash takes all that is written, zeros too */
  constructor(file: FileHandle, hash: Hash | null = null) {
    this.#file = file;
    this.#hash = hash;
  }

  async write(data: Buffer): Promise<void> {
    this.#hash?.update(data);
    for (let rest = data; rest.length > 0;) {
      const taken = rest.copy(this.#buffer, this.#filledBytes);
      this.#filledBytes += taken;
      rest = rest.subarray(taken);
      if (this.#filledBytes === bufferBytes) await this.#flush();
    }
  }

  /** Gives the file its length, holes at its end included, and closes it. */
  async end(): Promise<void> {
    await this.#flush();
    await this.#file.truncate(this.#offset);
    await this.#file.close();
  }

  /** Gives it up as it is. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#filledBytes);
    for (const { start, end } of dataRuns(bytes)) {
      for (let at = start; at < end;) {
        const { bytesWritten } = await this.#file.write(bytes, at, end - at, this.#offset + at);
        at += bytesWritten;
      }
    }
    this.#offset += this.#filledBytes;
    this.#filledBytes = 0;
  }
}

/** The runs of pages that are not all zeros. */
function dataRuns(bytes: Buffer): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = [];
  for (let start = 0; start < bytes.length; start += pageBytes) {
    const end = Math.min(start + pageBytes, bytes.length);
    if (bytes.compare(zeros, 0, end - start, start, end) === 0) continue;
    const last = runs.at(-1);
    if (last?.end === start) last.end = end;
    else runs.push({ start, end });
  }
  return runs;
}

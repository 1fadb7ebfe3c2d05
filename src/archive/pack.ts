import type { Hash } from 'node:crypto';
import { open } from 'node:fs/promises';

import { StaghornError } from '../errors/index.ts';
import { tarHeader, tarPadding } from './tar.ts';

export interface PackedFile {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

const readBytes = 1024 * 1024;

/** The entries of files, as a stream that reads no faster than it is read. @param prefix comes before each name */
export async function* packFiles(
  files: readonly PackedFile[],
  prefix: string,
): AsyncGenerator<Buffer, void, undefined> {
  for (const { name, path, bytes } of files) {
    yield tarHeader({ name: `${prefix}${name}`, bytes });
    yield* readWhole(path, bytes);
    yield tarPadding(bytes);
  }
}

/** The entry of a file that is in memory. */
export const packBytes = (name: string, content: Buffer): Buffer =>
  Buffer.concat([tarHeader({ name, bytes: content.length }), content, tarPadding(content.length)]);

/** @param hash takes all of it */
export async function* readWhole(
  path: string,
  bytes: number,
  hash: Hash | null = null,
): AsyncGenerator<Buffer, void, undefined> {
  const file = await open(path, 'r');
  try {
    for (let at = 0; at < bytes;) {
      const buffer = Buffer.allocUnsafe(Math.min(readBytes, bytes - at));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0)
        throw new StaghornError('snapshot-damaged', `${path} has ${at} bytes instead of ${bytes}`);
      at += bytesRead;
      const read = buffer.subarray(0, bytesRead);
      hash?.update(read);
      yield read;
    }
  } finally {
    await file.close();
  }
}

import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import type { Writable } from 'node:stream';

import { asStaghornError, StaghornError } from '../errors/index.ts';
import { compressEntries } from '../archive/compress.ts';
import { packFiles } from '../archive/pack.ts';
import { SparseWriter } from '../archive/sparse-writer.ts';
import { TarDecoder, tarEnd } from '../archive/tar.ts';
import { decompressZstd } from '../native/zstd-stream.ts';
import { listPartFiles } from '../store/part-files.ts';
import { ReceivedPart, type ReceivedName } from '../store/receiving.ts';
import type { SnapshotStore } from '../store/snapshot-directory.ts';
import { thisProcess } from '../vmm/process-identity.ts';
import { findPartDamage } from './verify-snapshot.ts';

export interface SendOptions {
  readonly snapshot: string;
  readonly manifestSha256: string;
  /** Before each name. */
  readonly prefix: string;
  /** Whether the archive ends with this part. */
  readonly isLast: boolean;
}

/** Writes a part of a snapshot as entries of a tar archive, compressed as one zstd frame. */
export async function sendPart(store: SnapshotStore, options: SendOptions, output: Writable): Promise<void> {
  const { snapshot, manifestSha256, prefix, isLast } = options;
  const files = await listPartFiles(store, await store.open(snapshot, manifestSha256));
  async function* entries() {
    yield* packFiles(files, prefix);
    if (isLast) yield tarEnd;
  }
  for await (const chunk of compressEntries(entries())) {
    if (!output.write(chunk)) await once(output, 'drain');
  }
}

/**
 * Reads what `sendPart` wrote into the store. Nothing of it is there unless it came whole and every checksum is
 * right. @returns its bytes
 */
export async function receivePart(
  store: SnapshotStore,
  expected: ReceivedName,
  input: AsyncIterable<Buffer>,
): Promise<number> {
  await mkdir(store.root, { recursive: true, mode: 0o700 });
  const { pid, startTicks } = thisProcess();
  const part = await ReceivedPart.begin(store, expected, `${pid}-${startTicks}`);
  try {
    await unpack(part, decompressZstd(input));
    part.requireComplete();
    const manifest = await part.readManifest();
    const { bytes, problems } = await findPartDamage({ manifest, directory: part.directory });
    if (problems.length > 0)
      throw new StaghornError('snapshot-damaged', problems.join('; '), { context: { problems } });
    await part.seal();
    return bytes;
  } catch (error) {
    await part.discard();
    throw asStaghornError(error, 'snapshot-damaged', 'this part of a snapshot cannot be read: ');
  }
}

async function unpack(part: ReceivedPart, content: AsyncIterable<Buffer>): Promise<void> {
  const decoder = new TarDecoder();
  let writer: SparseWriter | null = null;
  try {
    for await (const chunk of content) {
      for (const event of decoder.push(chunk)) {
        if (event.kind === 'file')
          writer = new SparseWriter(await part.create(event.file.name, event.file.bytes));
        if (event.kind === 'data') await writer?.write(event.data);
        if (event.kind !== 'fileEnd') continue;
        await writer?.end();
        writer = null;
        await part.readManifest();
      }
    }
    decoder.end();
  } finally {
    await writer?.close();
  }
}

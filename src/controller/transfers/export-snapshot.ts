import { compressEntries } from '../../archive/compress.ts';
import { archiveFormat, archiveHeadName, archiveVersion, formatHead } from '../../archive/portable.ts';
import { tarEnd, tarHeader, tarPadding } from '../../archive/tar.ts';
import type { StoredSnapshot } from '../catalog/catalog.ts';
import type { Experiments } from '../experiments.ts';
import { readPart } from './part-channel.ts';

/**
 * A snapshot as one portable archive: zstd frames, one after the other, of one tar archive. Each host compresses its
 * own part; nothing is kept here.
 */
export async function* exportSnapshot(
  experiments: Experiments,
  { snapshot, manifests }: StoredSnapshot,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const hosts = await experiments.connect(snapshot.experiment, new Set(Object.keys(manifests)));
  const parts = hosts.map(({ name, link }) => ({ host: name, link, manifestSha256: manifests[name]! }));
  const head = formatHead({
    format: archiveFormat,
    version: archiveVersion,
    snapshot,
    parts: parts.map(({ host, manifestSha256 }) => ({ host, manifestSha256 })),
  });
  const headEntry = [tarHeader({ name: archiveHeadName, bytes: head.length }), head, tarPadding(head.length)];
  yield* compressEntries(inTurn(headEntry));
  for (const { host, link, manifestSha256 } of parts) {
    const part = { snapshot: snapshot.id, manifestSha256 };
    yield* readPart(link, part, { prefix: `${host}/`, isLast: false, signal });
  }
  yield* compressEntries(inTurn([tarEnd]));
}

async function* inTurn(chunks: readonly Buffer[]): AsyncGenerator<Buffer, void, undefined> {
  yield* chunks;
}

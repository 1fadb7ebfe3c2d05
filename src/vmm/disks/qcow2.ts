/**
 * An empty qcow2 overlay, written here: a host need not have qemu-img, and starting it costs more than a restore
 * (QEMU's docs/interop/qcow2.txt, version 3).
 */
export interface BackingImage {
  readonly path: string;
  readonly format: string;
}

export interface EmptyOverlay {
  /** The first bytes of the file; the rest is zeros. */
  readonly head: Buffer;
  readonly fileBytes: number;
}

const clusterBits = 16;
const clusterBytes = 1 << clusterBits;
const headerBytes = 104;
export const backingFormatExtension = 0xe2792aca;
/** QEMU reads no longer name of a backing file (qcow2_do_open in its block/qcow2.c). */
export const maxBackingPathBytes = 1023;
/** What one entry of the level 1 table covers: a cluster of 8-byte entries, each a cluster. */
const bytesPerL1Entry = (clusterBytes / 8) * clusterBytes;

/** @throws RangeError if the path is longer than a header holds */
export function emptyOverlay(virtualBytes: number, backing: BackingImage): EmptyOverlay {
  const path = Buffer.from(backing.path);
  if (path.length > maxBackingPathBytes)
    throw new RangeError(`the path of a backing image is ${path.length} bytes: ${backing.path}`);
  const l1Entries = Math.max(1, Math.ceil(virtualBytes / bytesPerL1Entry));
  const l1Clusters = Math.ceil((l1Entries * 8) / clusterBytes);
  const extension = formatExtension(backing.format);
  const usedClusters = 3 + l1Clusters;
  const head = Buffer.alloc(2 * clusterBytes + usedClusters * 2);
  writeHeader(head, { virtualBytes, l1Entries, pathAt: headerBytes + extension.length, path });
  extension.copy(head, headerBytes);
  path.copy(head, headerBytes + extension.length);
  // One refcount block, in cluster 2, says that header, table, block and level 1 table are used once each.
  head.writeBigUInt64BE(BigInt(2 * clusterBytes), clusterBytes);
  for (let cluster = 0; cluster < usedClusters; cluster++)
    head.writeUInt16BE(1, 2 * clusterBytes + cluster * 2);
  return { head, fileBytes: usedClusters * clusterBytes };
}

function writeHeader(
  head: Buffer,
  at: { virtualBytes: number; l1Entries: number; pathAt: number; path: Buffer },
): void {
  head.write('QFI\xfb', 'latin1');
  head.writeUInt32BE(3, 4);
  head.writeBigUInt64BE(BigInt(at.pathAt), 8);
  head.writeUInt32BE(at.path.length, 16);
  head.writeUInt32BE(clusterBits, 20);
  head.writeBigUInt64BE(BigInt(at.virtualBytes), 24);
  head.writeUInt32BE(at.l1Entries, 36);
  head.writeBigUInt64BE(BigInt(3 * clusterBytes), 40);
  head.writeBigUInt64BE(BigInt(clusterBytes), 48);
  head.writeUInt32BE(1, 56);
  // Refcounts of 2^4 bits.
  head.writeUInt32BE(4, 96);
  head.writeUInt32BE(headerBytes, 100);
}

/** What an image's header says of what is below it and of its level 1 table; null: it is no qcow2 image. */
export function parseHeader(
  head: Buffer,
): { backing: string | null; l1: { offset: number; bytes: number } } | null {
  if (head.length < headerBytes || head.toString('latin1', 0, 4) !== 'QFI\xfb') return null;
  const [at, length] = [Number(head.readBigUInt64BE(8)), head.readUInt32BE(16)];
  return {
    backing: at === 0 || at + length > head.length ? null : head.toString('utf8', at, at + length),
    l1: { offset: Number(head.readBigUInt64BE(40)), bytes: head.readUInt32BE(36) * 8 },
  };
}

/** The extension that names the backing format, and the end of extensions; without it QEMU would guess. */
export function formatExtension(format: string): Buffer {
  const name = Buffer.from(format);
  const bytes = Buffer.alloc(8 + Math.ceil(name.length / 8) * 8 + 8);
  bytes.writeUInt32BE(backingFormatExtension, 0);
  bytes.writeUInt32BE(name.length, 4);
  name.copy(bytes, 8);
  return bytes;
}

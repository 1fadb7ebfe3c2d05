import { StaghornError } from '../../errors/index.ts';
import { backingFormatExtension, formatExtension, maxBackingPathBytes, type BackingImage } from './qcow2.ts';

/**
 * The header of an image that lies on another one than before, or on none: what `qemu-img rebase -u` does, where
 * there need not be a qemu-img (QEMU's docs/interop/qcow2.txt). Pure.
 */
const version2HeaderBytes = 72;
const version3HeaderMinBytes = 104;
const externalDataFile = 1n << 2n;
const endOfExtensions = 0;

/** How many bytes from its beginning hold an image's header: its first cluster. @throws StaghornError 'snapshot-damaged' */
export function headerClusterBytes(start: Buffer): number {
  const bits = isImage(start) ? start.readUInt32BE(20) : 0;
  // QEMU's MIN_CLUSTER_BITS and MAX_CLUSTER_BITS (block/qcow2.h).
  if (bits < 9 || bits > 21) throw damaged('it does not begin as such an image');
  return 1 << bits;
}

/**
 * @param cluster the first cluster of the image, as it was
 * @throws StaghornError 'snapshot-damaged' if it is no header, 'snapshot-unfit' if there is no room in it
 */
export function withBacking(cluster: Buffer, backing: BackingImage | null): Buffer {
  const headerBytes = headerBytesOf(cluster);
  const kept = keptExtensions(cluster, headerBytes);
  const extensions = Buffer.concat([
    ...kept,
    backing === null ? Buffer.alloc(8) : formatExtension(backing.format),
  ]);
  const path = Buffer.from(backing?.path ?? '');
  const pathAt = headerBytes + extensions.length;
  if (path.length > maxBackingPathBytes || pathAt + path.length > cluster.length)
    throw new StaghornError(
      'snapshot-unfit',
      `an image has no room in its header for the name ${backing!.path}`,
    );
  const changed = Buffer.alloc(cluster.length);
  cluster.copy(changed, 0, 0, headerBytes);
  extensions.copy(changed, headerBytes);
  path.copy(changed, pathAt);
  changed.writeBigUInt64BE(BigInt(backing === null ? 0 : pathAt), 8);
  changed.writeUInt32BE(path.length, 16);
  return changed;
}

const isImage = (start: Buffer) =>
  start.length >= version3HeaderMinBytes && start.toString('latin1', 0, 4) === 'QFI\xfb';

function headerBytesOf(cluster: Buffer): number {
  if (!isImage(cluster)) throw damaged('it does not begin as such an image');
  const version = cluster.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw damaged(`it has version ${version}`);
  if (version === 2) return version2HeaderBytes;
  if ((cluster.readBigUInt64BE(72) & externalDataFile) !== 0n)
    throw damaged('it keeps its data in another file');
  const bytes = cluster.readUInt32BE(100);
  if (bytes < version3HeaderMinBytes || bytes > cluster.length)
    throw damaged(`its header has ${bytes} bytes`);
  return bytes;
}

/** All but the name of the backing format and the end; extensions end where a backing path begins, too. */
function keptExtensions(cluster: Buffer, headerBytes: number): Buffer[] {
  const pathAt = Number(cluster.readBigUInt64BE(8));
  const end = pathAt === 0 ? cluster.length : Math.min(pathAt, cluster.length);
  const kept: Buffer[] = [];
  for (let at = headerBytes; at + 8 <= end;) {
    const [type, length] = [cluster.readUInt32BE(at), cluster.readUInt32BE(at + 4)];
    if (type === endOfExtensions) break;
    const next = at + 8 + Math.ceil(length / 8) * 8;
    if (next > end) throw damaged('an extension of its header does not end');
    if (type !== backingFormatExtension) kept.push(cluster.subarray(at, next));
    at = next;
  }
  return kept;
}

const damaged = (what: string) =>
  new StaghornError('snapshot-damaged', `an image is not a qcow2 image: ${what}`);

/**
 * A device state as the VM state of an internal snapshot in a qcow2 image (QEMU docs/interop/qcow2.txt), the only
 * form that a running QEMU loads (docs/decisions/0023). The image has no guest data: it is nobody's disk.
 */
export const stateTag = 'staghorn';

const clusterBits = 16;
const clusterBytes = 1 << clusterBits;
const entryBytes = 8;
/** What one L2 table covers. VM state begins behind the disk, at the second one. */
const tableEntries = clusterBytes / entryBytes;
const headerBytes = 104;
/** Two entries of L1: the disk's, and the state's. */
const l1Entries = 2;

const cluster = {
  refcounts: 1,
  refcountBlock: 2,
  l1: 3,
  snapshots: 4,
  snapshotL1: 5,
  l2: 6,
  state: 7,
} as const;
const offsetOf = (index: number) => BigInt(index) << BigInt(clusterBits);

/** @throws RangeError for a state of more than 512 MiB */
export function vmStateImage(state: Buffer): Buffer {
  const stateClusters = Math.ceil(state.length / clusterBytes);
  if (stateClusters > tableEntries) throw new RangeError(`a device state of ${state.length} bytes`);
  const clusters = cluster.state + stateClusters;
  const image = Buffer.alloc(clusters * clusterBytes);
  const at = (index: number) => image.subarray(index * clusterBytes);
  writeHeader(image);
  at(cluster.refcounts).writeBigUInt64BE(offsetOf(cluster.refcountBlock));
  for (let index = 0; index < clusters; index++) at(cluster.refcountBlock).writeUInt16BE(1, index * 2);
  writeSnapshot(at(cluster.snapshots), state.length);
  at(cluster.snapshotL1).writeBigUInt64BE(offsetOf(cluster.l2), entryBytes);
  for (let index = 0; index < stateClusters; index++)
    at(cluster.l2).writeBigUInt64BE(offsetOf(cluster.state + index), index * entryBytes);
  state.copy(at(cluster.state));
  return image;
}

function writeHeader(header: Buffer): void {
  header.write('QFI\xfb', 0, 'latin1');
  header.writeUInt32BE(3, 4); // version
  header.writeUInt32BE(clusterBits, 20);
  header.writeBigUInt64BE(BigInt(clusterBytes), 24); // size of the disk
  header.writeUInt32BE(l1Entries, 36);
  header.writeBigUInt64BE(offsetOf(cluster.l1), 40);
  header.writeBigUInt64BE(offsetOf(cluster.refcounts), 48);
  header.writeUInt32BE(1, 56); // clusters of the refcount table
  header.writeUInt32BE(1, 60); // snapshots
  header.writeBigUInt64BE(offsetOf(cluster.snapshots), 64);
  header.writeUInt32BE(4, 96); // refcount order: 16 bits
  header.writeUInt32BE(headerBytes, 100);
}

function writeSnapshot(entry: Buffer, stateBytes: number): void {
  const id = '1';
  entry.writeBigUInt64BE(offsetOf(cluster.snapshotL1), 0);
  entry.writeUInt32BE(l1Entries, 8);
  entry.writeUInt16BE(id.length, 12);
  entry.writeUInt16BE(stateTag.length, 14);
  entry.writeUInt32BE(stateBytes, 32);
  entry.writeUInt32BE(16, 36); // bytes of extra data: the same size in 64 bits, and the disk's
  entry.writeBigUInt64BE(BigInt(stateBytes), 40);
  entry.writeBigUInt64BE(BigInt(clusterBytes), 48);
  entry.write(id + stateTag, 56, 'latin1');
}

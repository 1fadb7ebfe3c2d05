import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import { crc32c } from '../../src/native/checksum.ts';
import { manifestVersion, type HostManifest, type StoredVm } from '../../src/store/manifest.ts';
import type { StoredDisk } from '../../src/store/stored-disks.ts';
import type { SnapshotStore } from '../../src/store/snapshot-directory.ts';

export const sampleId = '20261122T120000Z-abcdef';
const chunkBytes = 1024 * 1024;
const ramBytes = 4 * chunkBytes;

/** Seals a part with a VM whose RAM has a page of noise in each other chunk. @returns the manifest's checksum */
export async function sealSamplePart(
  store: SnapshotStore,
  { id = sampleId, needs = [], disks = [] }: { id?: string; needs?: string[]; disks?: StoredDisk[] } = {},
): Promise<string> {
  const partial = await store.create(id);
  const ram = Buffer.alloc(ramBytes);
  for (let at = 0; at < ramBytes; at += 2 * chunkBytes) randomBytes(4096).copy(ram, at + 8192);
  const file = await open(join(partial.path, 'a.ram'), 'wx', 0o600);
  for (let at = 0; at < ramBytes; at += 2 * chunkBytes) await file.write(ram, at + 8192, 4096, at + 8192);
  await file.truncate(ramBytes);
  await file.close();
  const checksums = Buffer.alloc((ramBytes / chunkBytes) * 4);
  for (let i = 0; i < ramBytes / chunkBytes; i++)
    checksums.writeUInt32LE(crc32c(ram.subarray(i * chunkBytes, (i + 1) * chunkBytes)), i * 4);
  const vm: StoredVm = {
    name: 'a',
    exe: '/usr/bin/qemu-system-x86_64',
    args: [],
    cwd: '/',
    uid: 0,
    gid: 0,
    qmpSocket: '/run/a.qmp',
    qemuVersion: '7.2.22',
    machineType: 'pc-i440fx-7.2',
    accelerator: 'tcg',
    method: 'fork',
    running: true,
    stoppedAtNs: 1n,
    resumedAtNs: 2n,
    hiddenNs: 0n,
    nics: [],
    memory: [],
    ram: {
      ...{ form: 'full', identities: null, places: null, layers: [] },
      file: 'a.ram',
      bytes: ramBytes,
      storedBytes: 8192,
      chunkBytes,
      chunkCrc32c: checksums.toString('base64'),
    },
    state: await partial.write('a.state', randomBytes(10_000)),
    blocks: [],
    disks,
  };
  const manifest: HostManifest = {
    format: 'staghorn-snapshot',
    version: manifestVersion,
    snapshot: id,
    experiment: 'e',
    createdAt: '2026-11-22T12:00:00Z',
    host: { hostname: 'h', kernel: 'k', staghorn: '0' },
    vms: [vm],
    frames: { ...(await partial.write('frames.bin', Buffer.from('frames'))), count: 0 },
    switches: null,
    needs,
  };
  return (await partial.seal(manifest)).manifestSha256;
}

import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { messageOf } from '../errors/index.ts';
import { identitiesMagic, identityKeyBytes } from '../native/page-identity.ts';
import { layersMax, type SaveParent } from '../native/ram.ts';
import type { StoredLayer, StoredRam, StoredVm } from './manifest.ts';
import { checkFile, type SnapshotStore, type StoredPart } from './snapshot-directory.ts';

/** A chain of more files than this is cut: the next snapshot is stored in full. */
export const layersUsedMax = 16;

/** What RAM of a new snapshot is compared with. */
export interface RamParent {
  readonly key: Buffer;
  readonly save: SaveParent;
  /** Where its pages are, by the numbers that they have in the new snapshot; its own file has 2. */
  readonly layers: readonly StoredLayer[];
}

/** The parent's part, or in words why it cannot be one. */
export async function openParent(store: SnapshotStore, snapshot: string): Promise<StoredPart | string> {
  return store.open(snapshot, null).catch((error: unknown) => messageOf(error));
}

/** RAM that will be stored. */
export interface WantedRam {
  /** Those that its VM may have in the parent, the likeliest first: a fork's had another one in what it came from. */
  readonly names: readonly string[];
  /** Its place in `ramsOf`. */
  readonly index: number;
  readonly bytes: number;
}

/** What a parent has of RAM; or in words why it is of no use. */
export async function findRamParent(
  store: SnapshotStore,
  { manifest, directory }: StoredPart,
  { names, index, bytes }: WantedRam,
  signal: AbortSignal,
): Promise<RamParent | string> {
  const vm = names.map((wanted) => manifest.vms.find(({ name }) => name === wanted)).find(Boolean);
  const ram = vm && ramsOf(vm)[index];
  if (ram === undefined) return `snapshot ${manifest.snapshot} has no RAM of it`;
  const { file, identities, places } = ram;
  if (ram.bytes !== bytes) return `${file} of ${manifest.snapshot} has another size`;
  if (identities === null) return `${file} of ${manifest.snapshot} was stored without identities`;
  const layers = layersFor(manifest.snapshot, ram);
  if (layers.length >= layersUsedMax) return `its pages would lie in more than ${layersUsedMax} files`;
  const damage =
    (await checkFile(directory, identities, signal)) ??
    (places === null ? null : await checkFile(directory, places, signal)) ??
    (await missingLayer(store, directory, layers, manifest.snapshot));
  if (damage !== null) return `snapshot ${manifest.snapshot}: ${damage}`;
  const key = await readKey(join(directory, identities.file));
  if (key === null) return `${identities.file} of ${manifest.snapshot} is not a file of identities`;
  const placesFile = places === null ? null : join(directory, places.file);
  const identitiesFile = join(directory, identities.file);
  return { key, layers, save: { identitiesFile, placesFile, layerOf: renumbering(ram) } };
}

/** Guest RAM of a VM, in all its memory objects. */
export const ramsOf = (vm: Pick<StoredVm, 'ram' | 'memory'>): StoredRam[] => [
  vm.ram,
  ...vm.memory.map(({ ram }) => ram),
];

const firstLayerOfParent = 2;

function layersFor(snapshot: string, ram: StoredRam): StoredLayer[] {
  const theirs = ram.form === 'full' ? [{ snapshot: null, file: ram.file, bytes: ram.bytes }] : ram.layers;
  return theirs.map(({ snapshot: owner, file, bytes }, index) => ({
    number: firstLayerOfParent + index,
    snapshot: owner ?? snapshot,
    file,
    bytes,
  }));
}

function renumbering({ layers }: StoredRam): Uint8Array {
  const layerOf = new Uint8Array(layersMax + 1);
  layers.forEach(({ number }, index) => (layerOf[number] = firstLayerOfParent + index));
  return layerOf;
}

async function missingLayer(
  store: SnapshotStore,
  directory: string,
  layers: readonly StoredLayer[],
  parent: string,
): Promise<string | null> {
  for (const { snapshot, file, bytes } of layers) {
    try {
      const own = snapshot === null || snapshot === parent;
      const { size } = await stat(
        own ? join(directory, file) : await store.fileOf(snapshot, file, directory),
      );
      if (size < bytes) return `${file} of ${snapshot} has ${size} bytes instead of ${bytes}`;
    } catch (error) {
      return messageOf(error);
    }
  }
  return null;
}

async function readKey(path: string): Promise<Buffer | null> {
  const file = await open(path);
  try {
    const header = Buffer.alloc(identitiesMagic.length + identityKeyBytes);
    await file.read(header, 0, header.length, 0);
    return header.subarray(0, identitiesMagic.length).equals(identitiesMagic)
      ? header.subarray(identitiesMagic.length)
      : null;
  } finally {
    await file.close();
  }
}

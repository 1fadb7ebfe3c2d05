import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import { filesNamedBy } from './manifest-files.ts';
import { manifestName, needsDirectory } from './part-names.ts';
import type { SnapshotStore, StoredPart } from './snapshot-directory.ts';

export interface PartFile {
  /** As it is called in a part that stands by itself: FILE, or needs/ID/FILE. */
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

/** All that a part consists of, and what it needs of other snapshots; the manifest first. */
export async function listPartFiles(
  store: SnapshotStore,
  { manifest, directory }: StoredPart,
): Promise<PartFile[]> {
  const places = [
    { name: manifestName, path: join(directory, manifestName) },
    ...(await Promise.all(
      filesNamedBy(manifest).map(async ({ snapshot, file }) =>
        snapshot === null
          ? { name: file, path: join(directory, file) }
          : {
              name: `${needsDirectory}/${snapshot}/${file}`,
              path: await store.fileOf(snapshot, file, directory),
            },
      ),
    )),
  ];
  return Promise.all(places.map(async (place) => ({ ...place, bytes: (await stat(place.path)).size })));
}

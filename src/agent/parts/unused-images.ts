import { messageOf } from '../../errors/index.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import { collectImages } from '../../vmm/disks/collect.ts';
import type { DiskDirectory } from '../../vmm/disks/disk-directory.ts';

/** The disk images of this host, and the snapshots that name them. */
export interface HostImages {
  readonly disks: DiskDirectory;
  readonly store: SnapshotStore;
  readonly log: Logger;
}

/** Where VMs of these names went back to a snapshot. */
interface AfterRestore {
  readonly barrier: string;
  readonly replaced: readonly string[];
}

/** Removes disk images that nothing needs. Nobody waits for the room: what fails is logged, and tried the next time. */
export async function removeUnusedImages(
  { disks, store, log }: HostImages,
  restore?: AfterRestore,
): Promise<void> {
  await collectImages(disks, store, restore?.replaced).catch((error: unknown) =>
    log.warn(
      restore === undefined ? {} : { barrier: restore.barrier },
      `unused disk images were not removed: ${messageOf(error)}`,
    ),
  );
}

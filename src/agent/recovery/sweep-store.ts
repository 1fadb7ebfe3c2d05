import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import type { Logger } from '../../protocol/logger.ts';
import { removeStaleImages } from '../../store/ram-image.ts';
import { receiverOf, snapshotOfPartial } from '../../store/part-names.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import { isRunning } from '../../vmm/process-identity.ts';
import type { IntentJournal } from '../session/intent.ts';

/**
 * Removes what dead agents and reboots left in the store. A barrier writes its intent before its directory: one
 * without an intent belongs to nobody any more.
 */
export async function sweepStore(store: SnapshotStore, journal: IntentJournal, log: Logger): Promise<void> {
  const removed = await store.sweep(async (name) => {
    const snapshot = snapshotOfPartial(name);
    if (snapshot !== null)
      return (await journal.readAll(() => undefined)).some((entry) => entry.snapshot === snapshot);
    const [pid, startTicks] = (receiverOf(name) ?? '').split('-');
    return startTicks !== undefined && isRunning({ pid: Number(pid), startTicks: BigInt(startTicks) });
  });
  for (const name of await readdir(store.root).catch(() => []))
    await removeStaleImages(join(store.root, name));
  if (removed.length > 0) log.warn({ removed }, 'removed what was left half-done in the store of snapshots');
}

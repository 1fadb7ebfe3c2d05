import type { RamKeeper, SaveTarget } from './keeper.ts';
import { OutgoingMigration } from './migration.ts';

/**
 * So many pages stay with QEMU until the VM has stopped: with none left it would stop the VM by itself. A page of zeros
 * is 9 bytes of the stream, and QEMU has at most a narrow pipe of 4 KiB and a buffer of 32 KiB under way, 4096 pages
 * (migration/qemu-file.c, IO_BUF_SIZE; native/ram/ram-stream.cc narrows the pipe).
 */
const pagesHeldBack = 4608;

/** All RAM is sent while the VM runs; what it has written since, and the last of it, when it has stopped. */
export async function keeperByPrecopy(target: SaveTarget): Promise<RamKeeper> {
  const migration = await OutgoingMigration.prepare(target, []);
  try {
    await migration.start();
    await migration.receiveUntil(pagesHeldBack);
  } catch (error) {
    await migration.close();
    throw error;
  }
  return {
    keep: async () => {
      if (target.maxBytesPerSecond > 0) await migration.hurry();
      await migration.receiveAll();
      return {
        forkNs: null,
        write: (block, file, options) => migration.write(block, file, options),
      };
    },
    close: () => migration.close(),
  };
}

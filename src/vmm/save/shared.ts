import { constants } from 'node:fs';
import { copyFile, open, readFile, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { closeDescriptor, createMemfd } from '../../native/descriptors.ts';
import { copyThreads, saveRam, type RamSource } from '../../native/ram.ts';
import { blocksOf, type RamLayout } from '../ram-layout.ts';
import { BlockFiles } from './block-files.ts';
import { writeBlock, type Block, type KeptRam, type RamKeeper, type SaveTarget } from './keeper.ts';

/**
 * RAM in files that QEMU maps shared: cloned by the file system where it can (FICLONE of XFS, btrfs), else copied
 * within memory, while the VM stands still. It is stored from the clone or copy.
 */
export async function keeperByCopy(target: SaveTarget): Promise<RamKeeper> {
  const blocks = blocksOf(target.layout);
  const clonable = new Set<string>();
  for (const block of blocks) {
    // The first clone writes back all that is dirty: the one while time stands still has little left to do.
    const trial = await clone(target, block);
    if (trial !== null) clonable.add(block.name);
    await trial?.close();
  }
  const clones = new BlockFiles();
  const copies = new Map<string, number>();
  return {
    keep: async (): Promise<KeptRam> => {
      for (const block of blocks) {
        const cloned = clonable.has(block.name) ? await clone(target, block) : null;
        if (cloned !== null) clones.add(block.name, cloned);
        else copies.set(block.name, await copyToMemory(target.pid, block));
      }
      return {
        forkNs: null,
        write: (block, file, options) => {
          const fd = copies.get(block.name);
          return fd === undefined
            ? clones.write(block, file, options)
            : writeBlock({ fd }, block, file, options, true);
        },
      };
    },
    close: async () => {
      await clones.close();
      for (const fd of copies.values()) closeDescriptor(fd);
      copies.clear();
    },
  };
}

/** The very file that is mapped, whatever its path says by now (proc(5), map_files). */
const mappedFile = (pid: number, { address, length }: Block) =>
  `/proc/${pid}/map_files/${address.toString(16)}-${(address + BigInt(length)).toString(16)}`;

/** A clone without a name in the snapshot's directory; null if the file system has none of this file. */
async function clone({ pid, directory }: SaveTarget, block: Block): Promise<FileHandle | null> {
  const path = join(directory, `.clone-${block.name.replaceAll('/', '_')}`);
  try {
    await copyFile(mappedFile(pid, block), path, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    return await open(path, 'r');
  } catch {
    return null;
  } finally {
    await rm(path, { force: true });
  }
}

/** @returns a memory file with the block's contents */
async function copyToMemory(pid: number, block: Block): Promise<number> {
  const memory = createMemfd({ name: 'staghorn-ram' });
  // Read as a file where it is one: reading holes through the mapping would fill them with pages.
  const mapped = await open(mappedFile(pid, block), 'r').catch(() => null);
  const source: RamSource = mapped === null ? { pid } : { fd: mapped.fd };
  try {
    await saveRam({
      ...source,
      regions: [{ address: mapped === null ? block.address : 0n, length: block.length, fileOffset: 0 }],
      file: memory,
      threads: copyThreads,
      niceness: 0,
    });
    return memory;
  } catch (error) {
    closeDescriptor(memory);
    throw error;
  } finally {
    await mapped?.close();
  }
}

/** Null if it would work, else why not. */
export async function sharedObstacle(layout: RamLayout): Promise<string | null> {
  if (layout.main.private) return `${layout.main.name} is a private mapping: fork keeps that without a copy`;
  const offset = blocksOf(layout).find((block) => !block.private && block.backingOffset !== 0n);
  if (offset !== undefined) return `${offset.name} does not begin at its file's begin`;
  const neededKiB = blocksOf(layout).reduce((sum, { length }) => sum + length / 1024, 0);
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'));
  return Number(available?.[1] ?? 0) >= neededKiB
    ? null
    : `a copy of its RAM, ${neededKiB} KiB, may need more memory than the host has free`;
}

import { unlink, open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import type { SavedRam } from '../../native/ram.ts';
import { writeBlock, type Block, type WriteOptions } from './keeper.ts';

/** A file without a name for each RAM block: RAM as it was kept, before it is stored. */
export class BlockFiles {
  readonly #files = new Map<string, FileHandle>();

  static async create(directory: string, blocks: readonly Block[]): Promise<BlockFiles> {
    const files = new BlockFiles();
    try {
      for (const { name, length } of blocks) {
        const path = join(directory, `.kept-${process.pid}-${name.replaceAll('/', '_')}`);
        const file = await open(path, 'wx+', 0o600);
        files.#files.set(name, file);
        await unlink(path);
        await file.truncate(length);
      }
      return files;
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  /** Takes over a file that begins with the block. */
  add(name: string, file: FileHandle): void {
    this.#files.set(name, file);
  }

  get descriptors(): { name: string; fd: number }[] {
    return [...this.#files].map(([name, { fd }]) => ({ name, fd }));
  }

  write(block: Block, file: string, options: WriteOptions): Promise<SavedRam> {
    const kept = this.#files.get(block.name);
    if (kept === undefined) throw new Error(`no file of RAM block ${block.name}`);
    return writeBlock({ fd: kept.fd }, block, file, options, true);
  }

  async close(): Promise<void> {
    const files = [...this.#files.values()];
    this.#files.clear();
    await Promise.all(files.map((file) => file.close()));
  }
}

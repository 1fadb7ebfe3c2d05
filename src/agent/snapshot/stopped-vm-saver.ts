import { join } from 'node:path';

import type { StoredFile, StoredRam, StoredVm } from '../../store/manifest.ts';
import { hashFile, type PartialSnapshot } from '../../store/snapshot-directory.ts';
import type { SaveMethod } from '../../protocol/vm.ts';
import type { LocatedBlock } from '../../native/process-memory.ts';
import type { ControlledVm, StoppedVm } from '../../vmm/controlled-vm.ts';
import { saveMethods } from '../../vmm/save-methods.ts';
import { withConfiguration } from '../../vmm/device-state.ts';
import { backendRamFile, mainRamFile, type RamStorage } from './ram-storage.ts';

/** What is stored of one VM, but for what only the end of the barrier knows. */
export type StoredVmParts = Pick<StoredVm, 'ram' | 'memory' | 'state' | 'blocks' | 'disks'>;

/**
 * Saves one VM in two steps: `keep` while it stands still, `store` when it may be running again.
 * Invariant: whatever ends it, `release` lets go of the kept image.
 */
export class StoppedVmSaver {
  readonly vm: ControlledVm;
  readonly method: SaveMethod;
  readonly #directory: PartialSnapshot;
  readonly #storage: RamStorage;
  #kept: StoppedVm | undefined;
  #ram: { ram: StoredRam; memory: StoredVm['memory']; blocks: StoredVm['blocks'] } | undefined;

  constructor(vm: ControlledVm, method: SaveMethod, directory: PartialSnapshot, storage: RamStorage) {
    this.vm = vm;
    this.method = method;
    this.#directory = directory;
    this.#storage = storage;
  }

  async keep(signal: AbortSignal, onProgress: (doneBytes: number) => void): Promise<StoppedVm> {
    this.#kept = await this.vm.keep();
    if (saveMethods[this.method].copiesWhileStopped)
      this.#ram = await this.#writeRam(this.#kept, signal, onProgress);
    return this.#kept;
  }

  async store(signal: AbortSignal, onProgress: (doneBytes: number) => void): Promise<StoredVmParts> {
    if (this.#kept === undefined) throw new Error('nothing was kept');
    this.#ram ??= await this.#writeRam(this.#kept, signal, onProgress);
    const stream = withConfiguration(await this.vm.readDeviceState(), this.vm.vm.machineType!);
    const state = await this.#directory.write(`${this.vm.name}.state`, stream);
    const disks = await this.vm.disks.store(signal);
    await this.release();
    return { ...this.#ram, state, disks };
  }

  async release(): Promise<void> {
    this.#kept = undefined;
    await this.vm.releaseRam();
  }

  async #writeRam(kept: StoppedVm, signal: AbortSignal, onProgress: (doneBytes: number) => void) {
    const { main, backends, others } = this.vm.layout;
    const { path } = this.#directory;
    const { limit } = this.#storage;
    let doneBytes = 0;
    const store = async (block: LocatedBlock, file: string): Promise<StoredRam> => {
      const form = this.#storage.formOf(file);
      const saved = await kept.ram.write(block, join(path, file), {
        storing: form.storing(path),
        limit,
        signal,
        onProgress: (bytes) => onProgress(doneBytes + bytes),
      });
      doneBytes += block.length;
      return form.describe(path, block.length, saved, signal);
    };
    const ram = await store(main, mainRamFile(this.vm.name));
    const memory: StoredVm['memory'] = [];
    for (const [index, { id, device, block }] of backends.entries())
      memory.push({ id, device, ram: await store(block, backendRamFile(this.vm.name, index)) });
    const blocks: (StoredFile & { name: string })[] = [];
    for (const [index, block] of others.entries()) {
      const blockFile = `${this.vm.name}.block${index}`;
      await kept.ram.write(block, join(path, blockFile), { limit, signal });
      blocks.push({ name: block.name, ...(await hashFile(path, blockFile, signal)) });
    }
    return { ram, memory, blocks };
  }
}

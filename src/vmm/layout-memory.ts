import type { QemuProcess } from './qemu-process.ts';
import type { RamLayout } from './ram-layout.ts';

/**
 * Where the memory of restored VMs lies. It stays there for as long as nothing is plugged in or out, which whoever
 * recalls it must know; to ask QEMU and the kernel takes as long as to reset a VM.
 */
export class LayoutMemory {
  readonly #layouts = new Map<string, { readonly process: QemuProcess; readonly layout: RamLayout }>();

  remember(process: QemuProcess, layout: RamLayout): void {
    // One a name: the QEMU that was restored before has ended.
    this.#layouts.set(process.name, { process, layout });
  }

  recall({ name, pid, startTicks }: QemuProcess): RamLayout | null {
    const known = this.#layouts.get(name);
    return known?.process.pid === pid && known.process.startTicks === startTicks ? known.layout : null;
  }
}

import { createRateLimit, type RateLimit } from '../../native/ram.ts';
import { canIdentifyPages } from '../../native/page-identity.ts';
import { formerNames } from '../../protocol/fork.ts';
import type { AgentParams } from '../../protocol/rpc.ts';
import { RamForm } from '../../store/ram-form.ts';
import { findRamParent, openParent, type RamParent, type WantedRam } from '../../store/ram-parent.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';

export const mainRamFile = (vm: string) => `${vm}.ram`;
export const backendRamFile = (vm: string, index: number) => `${vm}.ram${index + 1}`;

/** How the RAM of a host's VMs will be stored: chosen before time stops, so that its warnings are known. */
export class RamStorage {
  /** Of all VMs of the host together, while time goes on. */
  readonly limit: RateLimit | undefined;
  readonly warnings: readonly string[];
  readonly #parents: ReadonlyMap<string, RamParent>;
  readonly #level: number;

  private constructor(
    { compression, level, maxBytesPerSecond }: AgentParams<'arm'>['ram'],
    parents: ReadonlyMap<string, RamParent>,
    warnings: readonly string[],
  ) {
    this.limit = maxBytesPerSecond > 0 ? createRateLimit(maxBytesPerSecond) : undefined;
    this.warnings = warnings;
    this.#parents = parents;
    this.#level = compression === 'none' ? 0 : level;
  }

  static async prepare(
    { parent, ram }: Pick<AgentParams<'arm'>, 'parent' | 'ram'>,
    store: SnapshotStore,
    vms: readonly ControlledVm[],
    signal: AbortSignal,
  ): Promise<RamStorage> {
    if (parent === null) return new RamStorage(ram, new Map(), []);
    const part = canIdentifyPages
      ? await openParent(store, parent)
      : 'this CPU lacks PCLMULQDQ, by which pages are compared';
    if (typeof part === 'string') return new RamStorage(ram, new Map(), [`RAM is stored in full: ${part}`]);
    const parents = new Map<string, RamParent>();
    const warnings: string[] = [];
    for (const { vm, file, ...wanted } of vms.flatMap(ramFilesOf)) {
      const found = await findRamParent(store, part, wanted, signal);
      if (typeof found !== 'string') parents.set(file, found);
      else warnings.push(`VM ${vm}: RAM is stored in full: ${found}`);
    }
    return new RamStorage(ram, parents, warnings);
  }

  formOf(file: string): RamForm {
    return new RamForm(file, { parent: this.#parents.get(file) ?? null, level: this.#level });
  }
}

function ramFilesOf({ name: vm, layout }: ControlledVm): (WantedRam & { vm: string; file: string })[] {
  const names = formerNames(vm);
  const backends = layout.backends.map(({ block }, index) => {
    return { file: backendRamFile(vm, index), bytes: block.length };
  });
  return [{ file: mainRamFile(vm), bytes: layout.main.length }, ...backends].map((ram, index) => {
    return { vm, names, index, ...ram };
  });
}

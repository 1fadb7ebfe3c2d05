import { all, parseCommandLine } from './command-line.ts';
import type { QemuAbilities } from './qemu-probe.ts';

/** What is known of a stored VM's QEMU. */
export interface SavedQemu {
  readonly name: string;
  readonly exe: string;
  readonly args: readonly string[];
  readonly qemuVersion: string;
  readonly machineType: string;
  readonly accelerator: string;
}

/** What keeps a VM from being restored, and what will not be as it was; in words. */
export interface Fit {
  readonly misfits: readonly string[];
  readonly warnings: readonly string[];
}

/** Whether a QEMU can load what another one saved. @param abilities why it says nothing, if it is a text */
export function qemuFit(vm: SavedQemu, abilities: QemuAbilities | string): Fit {
  const about = `VM ${vm.name}: saved by QEMU ${vm.qemuVersion}`;
  if (typeof abilities === 'string')
    return { misfits: [`${about}, and ${vm.exe} does not run here: ${abilities}`], warnings: [] };
  const { version, machines } = abilities;
  const newer = compareVersions(version, vm.qemuVersion);
  const misfits = [...cpuMisfits(vm, abilities)];
  if (newer < 0)
    misfits.push(`${about}, and ${vm.exe} is version ${version}: an older one cannot be trusted to load it`);
  if (!machines.has(vm.machineType))
    misfits.push(`VM ${vm.name}: ${vm.exe} has no machine type ${vm.machineType}`);
  const warnings = newer > 0 ? [`${about}, restored by ${version} as the same machine type`] : [];
  return { misfits, warnings };
}

/** The features that the accelerator lacks matter under KVM; TCG leaves the same ones out again. */
function cpuMisfits({ name, exe, args, accelerator }: SavedQemu, { cpus }: QemuAbilities): string[] {
  const model = all(parseCommandLine(args), 'cpu').at(-1)?.split(',')[0];
  if (model === undefined || model === 'host' || model === 'max') return [];
  const missing = cpus.get(model);
  if (missing === undefined) return [`VM ${name}: ${exe} has no CPU model ${model}`];
  if (accelerator === 'tcg' || missing.length === 0) return [];
  return [`VM ${name}: this host's CPU lacks what CPU model ${model} has: ${missing.join(', ')}`];
}

/** Negative: a is older than b. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split('.').map(Number)) as [number[], number[]];
  const place = left.findIndex((part, index) => part !== (right[index] ?? 0));
  return place < 0 ? 0 : left[place]! - (right[place] ?? 0);
}

import { loadAddon } from './addon.ts';

export interface BpfProgram {
  readonly id: number;
  readonly name: string;
  readonly mapIds: readonly number[];
}

const addon = loadAddon() as { readPrograms(): BpfProgram[]; hasMap(id: number): boolean };

/** All BPF programs of this machine. Needs CAP_SYS_ADMIN; throws an error with an errno's `code`. */
export function readBpfPrograms(): BpfProgram[] {
  return addon.readPrograms();
}

/** Whether there is a map of that kernel id. */
export function hasBpfMap(id: number): boolean {
  return addon.hasMap(id);
}

import { loadAddon } from './addon.ts';

export interface RingUsage {
  readonly usedBytes: number;
  readonly sizeBytes: number;
}

const addon = loadAddon() as { ringUsage(ringMapId: number): RingUsage };

/** How full the ring of a gate is. Throws an error with code ENOENT if it is gone. */
export function readRingUsage(ringMapId: number): RingUsage {
  return addon.ringUsage(ringMapId);
}

import { closeSync } from 'node:fs';
import { loadAddon } from './addon.ts';
import { setTapProgram } from './tap.ts';

const addon = loadAddon() as { loadPlug(): number };

/**
 * Closes a tap, by any descriptor of it: whatever is sent to it is dropped, until another program takes the place
 * of this one. It stays on a persistent tap when the descriptor is closed. Throws an ErrnoError.
 */
export function plugTap(fd: number): void {
  const program = addon.loadPlug();
  try {
    setTapProgram(fd, program);
  } finally {
    closeSync(program);
  }
}

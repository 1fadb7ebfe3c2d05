import { describe, expect, it } from 'vitest';

import { compareVersions, qemuFit, type SavedQemu } from './qemu-fit.ts';

const saved: SavedQemu = {
  name: 'r1',
  exe: '/usr/bin/qemu-system-x86_64',
  args: ['-cpu', 'Haswell,+vmx', '-m', '128'],
  qemuVersion: '7.2.22',
  machineType: 'pc-i440fx-7.2',
  accelerator: 'tcg',
};
const abilities = {
  version: '7.2.22',
  machines: new Set(['pc', 'pc-i440fx-7.2']),
  cpus: new Map([['Haswell', ['avx2']]]),
};

describe('whether a QEMU can load what another one saved', () => {
  it('is so for the same version', () => {
    expect(qemuFit(saved, abilities)).toEqual({ misfits: [], warnings: [] });
  });

  it('is so for a newer one with the same machine type, with a warning', () => {
    expect(qemuFit(saved, { ...abilities, version: '8.0.0' })).toEqual({
      misfits: [],
      warnings: ['VM r1: saved by QEMU 7.2.22, restored by 8.0.0 as the same machine type'],
    });
  });

  it.each([
    ['an older one', saved, { ...abilities, version: '7.2.9' }, /an older one cannot be trusted/],
    [
      'one without the machine type',
      saved,
      { ...abilities, machines: new Set(['pc']) },
      /no machine type pc-i440/,
    ],
    ['one without the CPU model', saved, { ...abilities, cpus: new Map() }, /no CPU model Haswell/],
    ['a CPU that lacks features', { ...saved, accelerator: 'kvm' }, abilities, /CPU lacks .*: avx2/],
    ['a binary that is gone', saved, 'ENOENT', /does not run here: ENOENT/],
  ])('is not so for %s', (_, vm, found, words) => {
    expect(qemuFit(vm, found).misfits).toEqual([expect.stringMatching(words)]);
  });

  it('asks no questions about a CPU that is whatever the host has', () => {
    expect(qemuFit({ ...saved, args: ['-cpu', 'host'] }, { ...abilities, cpus: new Map() }).misfits).toEqual(
      [],
    );
  });

  it('orders versions by number', () => {
    expect(compareVersions('7.2.10', '7.2.9')).toBeGreaterThan(0);
    expect(compareVersions('6.9.9', '7.0.0')).toBeLessThan(0);
    expect(compareVersions('7.2.0', '7.2.0')).toBe(0);
  });
});

import { afterEach, describe, expect, test } from 'vitest';

import type { SaveMethod } from '../../src/protocol/vm.ts';
import { SavedVm } from './saved-vm.ts';

const sharedRam = '-object memory-backend-memfd,id=ram,size=96M,share=on -machine memory-backend=ram'.split(
  ' ',
);
const plain = ['-m', '96'];
const cases: [SaveMethod, string, string[]][] = [
  ['fork', 'private RAM', plain],
  ['background', 'private RAM', plain],
  ['background', 'shared RAM', [...plain, ...sharedRam]],
  ['precopy', 'private RAM', plain],
  ['precopy', 'shared RAM', [...plain, ...sharedRam]],
  ['shared', 'shared RAM', [...plain, ...sharedRam]],
  ['stop-copy', 'private RAM', plain],
];
const open: SavedVm[] = [];

afterEach(async () => {
  for (const vm of open.splice(0)) await vm.close();
});

async function start(...given: Parameters<typeof SavedVm.start>): Promise<SavedVm> {
  const vm = await SavedVm.start(...given);
  open.push(vm);
  return vm;
}

/** Saves the VM, changes it, and restores it; it must be as it was, and go on from there. */
async function comesBack(vm: SavedVm, method: SaveMethod): Promise<{ ranNs: number }> {
  vm.fill('as it was ');
  await vm.countsOn();
  const { then, count, parts, ranNs } = await vm.save(method, async () => {
    vm.fill('changed ');
    await vm.countsOn();
  });
  await vm.restore(parts);
  const now = await vm.contents();
  expect(now.map((content, index) => content.equals(then[index]!))).toEqual(then.map(() => true));
  expect(await vm.counter()).toBe(count);
  await vm.vm.qmp.execute('cont');
  await vm.countsOn();
  return { ranNs };
}

describe('a VM that was saved and killed', () => {
  test.each(cases)('comes back as it was: method %s, %s', async (method, _, args) => {
    const vm = await start(args);
    expect(vm.vm.vm.methods[method]).toBeNull();
    await comesBack(vm, method);
    // A restored VM can be saved again: its RAM is a private mapping of what is stored.
    await comesBack(vm, 'fork');
  });
});

import { vmFiles } from './paths.ts';
import type { VmPlan } from './plan.ts';

/** Where an image of a VM is, as its host sees it. */
const imageOf = (vm: VmPlan, index: number): string => vmFiles(vm.name).disk(index);

/** The commands that make the images of a VM, empty. */
export function diskCommands(vm: VmPlan): string[][] {
  return vm.disks.map(({ sizeMiB, format }, index) => [
    'qemu-img',
    ...['create', '-q', '-f', format, imageOf(vm, index), `${sizeMiB}M`],
  ]);
}

/** The options of QEMU that give the images to the VM. */
export function diskArguments(vm: VmPlan): string[] {
  return vm.disks.flatMap(({ format, cache }, index) => [
    '-drive',
    `file=${imageOf(vm, index)},format=${format},if=none,id=disk${index},cache=${cache}`,
    '-device',
    `virtio-blk-pci,id=vd${index},drive=disk${index}`,
  ]);
}

import { guestCommandLine } from './guest-command-line.ts';
import { HOST_RUN, vmFiles } from './paths.ts';
import type { NicPlan, VmPlan } from './plan.ts';

export type Accelerator = 'kvm' | 'tcg';

/** Open vSwitch's userspace datapath reads taps without offload metadata, so guests get none to use. */
function nicArguments(nic: NicPlan, index: number): string[] {
  return [
    '-netdev',
    `tap,id=net${index},ifname=${nic.tap},script=no,downscript=no,vhost=off,vnet_hdr=off`,
    '-device',
    `virtio-net-pci,id=nic${index},netdev=net${index},mac=${nic.mac},romfile=`,
  ];
}

/**
 * QEMU's command line for a VM of the lab, as it runs in its host. The emulated clock follows the VM (`clock=vm`),
 * because with the host's the guest's RTC runs on while the VM is stopped.
 */
export function qemuCommand(vm: VmPlan, accelerator: Accelerator): string[] {
  const files = vmFiles(vm.name);
  return [
    'qemu-system-x86_64',
    ...['-name', vm.name],
    ...['-M', `pc,accel=${accelerator}`],
    ...['-m', String(vm.memoryMiB)],
    ...['-smp', String(vm.cpus)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none', '-no-reboot'],
    ...['-rtc', 'base=utc,clock=vm'],
    ...vm.nics.flatMap(nicArguments),
    ...['-chardev', `file,id=serial0,path=${files.serial},append=on`, '-serial', 'chardev:serial0'],
    ...['-qmp', `unix:${files.qmp},server=on,wait=off`],
    ...['-kernel', `${HOST_RUN}/guest/vmlinuz`, '-initrd', `${HOST_RUN}/guest/initrd`],
    ...['-append', guestCommandLine(vm)],
    ...['-daemonize', '-pidfile', files.pid],
  ];
}

import { guestCommandLine } from './guest-command-line.ts';
import type { GuestImages } from './guest-image.ts';
import { diskArguments } from './vm-disks.ts';
import { captureFile, imageInHost, vmFiles } from './paths.ts';
import type { NicPlan, VmPlan } from './plan.ts';

export type Accelerator = 'kvm' | 'tcg';

/** What the machine gives to all VMs alike. */
export interface Machine {
  readonly accelerator: Accelerator;
  /** Under TCG a guest's TSC counts as the machine's does (cpu_get_host_ticks in QEMU's include/qemu/timer.h). */
  readonly tscKhz: number;
  /** Whether the kernel has vhost-net. */
  readonly vhost: boolean;
  readonly images: GuestImages;
}

const device: Readonly<Record<NicPlan['model'], string>> = {
  virtio: 'virtio-net-pci',
  e1000: 'e1000',
  rtl8139: 'rtl8139',
};

/**
 * Up to 8.1 at least, QEMU clears a virtio NIC's table of VLANs when it loads its state, and drops every tagged frame
 * from then on (virtio_net_set_features in hw/net/virtio-net.c); a guest in a trunk is not offered to fill that table.
 */
function filterArguments({ model, vlan, interfaces }: NicPlan): string {
  const trunk = vlan === null && interfaces.some((one) => one.vlan !== null);
  return model === 'virtio' && trunk ? ',ctrl_vlan=off' : '';
}

/** A vector for each direction of each queue, one for the control queue and one for changes of the configuration. */
function queueArguments({ queues }: NicPlan): string {
  return queues > 1 ? `,mq=on,vectors=${2 * queues + 2}` : '';
}

function nicArguments(vm: VmPlan, nic: NicPlan, index: number, { vhost }: Machine): string[] {
  const fast = nic.vhost === 'on' || (nic.vhost === 'auto' && vhost && nic.model === 'virtio');
  const queues = nic.queues > 1 ? `,queues=${nic.queues}` : '';
  const tap = `tap,id=net${index},ifname=${nic.tap},script=no,downscript=no`;
  return [
    '-netdev',
    `${tap},vhost=${fast ? 'on' : 'off'},vnet_hdr=${nic.offloads ? 'on' : 'off'}${queues}`,
    '-device',
    `${device[nic.model]},id=nic${index},netdev=net${index},mac=${nic.mac},romfile=${queueArguments(nic)}${filterArguments(nic)}`,
    ...(nic.capture
      ? ['-object', `filter-dump,id=capture${index},netdev=net${index},file=${captureFile(vm.name, index)}`]
      : []),
  ];
}

/**
 * QEMU's command line for a VM of the lab, as it runs in its host. The emulated clock follows the VM (`clock=vm`),
 * because with the host's the guest's RTC runs on while the VM is stopped.
 */
export function qemuCommand(vm: VmPlan, machine: Machine): string[] {
  const { accelerator, tscKhz, images } = machine;
  const files = vmFiles(vm.name);
  const image = imageInHost(images[vm.kernel] ?? images.cloud);
  return [
    'qemu-system-x86_64',
    ...['-name', vm.name],
    ...['-M', `pc,accel=${accelerator}`],
    ...['-m', String(vm.memoryMiB)],
    ...['-smp', String(vm.cpus)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none', '-no-reboot'],
    ...['-rtc', 'base=utc,clock=vm'],
    ...vm.nics.flatMap((nic, index) => nicArguments(vm, nic, index, machine)),
    ...diskArguments(vm),
    ...['-chardev', `file,id=serial0,path=${files.serial},append=on`, '-serial', 'chardev:serial0'],
    ...['-qmp', `unix:${files.qmp},server=on,wait=off`],
    ...['-kernel', `${image}/vmlinuz`, '-initrd', `${image}/initrd`],
    ...['-append', guestCommandLine(vm, tscKhz)],
    ...['-daemonize', '-pidfile', files.pid],
  ];
}

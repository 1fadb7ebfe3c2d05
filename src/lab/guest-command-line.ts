import { StaghornError } from '../errors/index.ts';
import type { VmPlan } from './plan.ts';

/** COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h), with its terminating zero. */
const KERNEL_LIMIT_BYTES = 2048;

/** A quick and quiet boot: no self tests, no IPv6 noise on the taps, and a reset (which ends QEMU) after a panic. */
const BOOT_WORDS = [
  'console=ttyS0',
  'quiet',
  'loglevel=1',
  'panic=-1',
  'tsc=reliable',
  'no_timer_check',
  'mitigations=off',
  'ipv6.disable=1',
  'cryptomgr.notests',
];

/**
 * The kernel command line, which is also the probe's configuration. `sg.nic` is the MTU of the next NIC; `sg.if` a
 * NIC, a VLAN or nothing, and an address; `sg.peer` is id, address, MAC, interface, milliseconds between datagrams,
 * and bytes a second of the stream; `sg.rx` is the receive window and segment, `sg.rto` the shortest
 * retransmission timeout in milliseconds.
 * @throws StaghornError 'invalid-input' if there are too many peers for it
 */
export function guestCommandLine(vm: VmPlan, tscKhz: number): string {
  const words = [
    ...BOOT_WORDS,
    // On a busy machine a guest's own calibration has been wrong by a factor of three, and its clocks with it.
    `tsc_early_khz=${tscKhz}`,
    `sg.name=${vm.name}`,
    `sg.id=${vm.id}`,
    `sg.report=${vm.reportIntervalMs}`,
    `sg.rto=${vm.tcpLeastTimeoutMs}`,
    ...(vm.tcp === null ? [] : [`sg.rx=${vm.tcp.windowBytes},${vm.tcp.segmentBytes}`]),
    ...vm.nics.map(({ mtuBytes }) => `sg.nic=${mtuBytes}`),
    ...vm.nics.flatMap(({ interfaces }, nic) =>
      interfaces.map(({ vlan, address }) => `sg.if=${nic},${vlan ?? ''},${address}`),
    ),
    ...vm.peers.map(
      (peer) =>
        `sg.peer=${peer.id},${peer.address},${peer.mac},${peer.nic},${peer.udpIntervalMs},${peer.tcpBytesPerSecond}`,
    ),
  ];
  const line = words.join(' ');
  if (line.length >= KERNEL_LIMIT_BYTES) {
    const what = `VM "${vm.name}" has ${vm.peers.length} peers, more than its kernel command line can name`;
    throw new StaghornError('invalid-input', `${what}; split the VMs into several networks`);
  }
  return line;
}

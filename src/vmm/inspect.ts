import { messageOf, StaghornError } from '../errors/index.ts';
import type { Link } from '../native/netlink.ts';
import { vnetHeaderBytes } from '../native/tap.ts';
import { duplicateDescriptor, closeDescriptor } from '../native/descriptors.ts';
import type { SwitchPort, Vm } from '../protocol/vm.ts';
import type { QmpClient } from '../qmp/index.ts';
import {
  all,
  formatCommandLine,
  parseParameters,
  unrestorableOptions,
  withoutRestoreOptions,
} from './command-line.ts';
import { connectQmp, hmp, qomGet } from './connect-qmp.ts';
import { readDisks, type DisksOfVm } from './disks/read-disks.ts';
import { parseInfoNetwork, type NetworkPair } from './info-network.ts';
import type { QemuProcess } from './qemu-process.ts';
import { ramBytesOf, readRamLayout, type RamLayout } from './ram-layout.ts';
import { noMethod, probeMethods } from './save-methods.ts';
import { readTapDescriptors, usesVhost, type TapDescriptor } from './tap-descriptors.ts';

/** What surrounds the VMs of a host: looked up once for all of them. */
export interface HostSurroundings {
  readonly links: readonly Link[];
  /** By interface name. */
  readonly switchPorts: ReadonlyMap<string, SwitchPort>;
}

/** Looks at a VM from outside and through QMP. Whatever stands in the way of a snapshot ends up in `obstacles`. */
export async function inspectVm(
  process: QemuProcess,
  surroundings: HostSurroundings,
  signal?: AbortSignal,
): Promise<Vm> {
  try {
    const { qmp, path } = await connectQmp(process, signal);
    try {
      const { vm } = await describeVm(process, qmp, path, surroundings);
      return vm;
    } finally {
      await qmp.close();
    }
  } catch (error) {
    signal?.throwIfAborted();
    return unreachableVm(process, messageOf(error));
  }
}

/** A VM, and what was found out of it on the way. */
export interface InspectedVm {
  readonly vm: Vm;
  readonly layout: PromiseSettledResult<RamLayout>;
  readonly disks: DisksOfVm['disks'];
}

/** The same over a QMP connection that is open already. Nothing waits for an answer that it does not need. */
export async function describeVm(
  process: QemuProcess,
  qmp: QmpClient,
  qmpSocket: string,
  surroundings: HostSurroundings,
): Promise<InspectedVm> {
  const [[layout], asked, disks, blockers] = await Promise.all([
    Promise.allSettled([readRamLayout(qmp, process.pid, process.options)]),
    askVm(process, { qmp, path: qmpSocket }, surroundings),
    readDisks(process, qmp),
    migrationBlockers(qmp),
  ]);
  const found = layout.status === 'fulfilled' ? layout.value : messageOf(layout.reason);
  const vm: Vm = {
    ...asked,
    ramBytes: typeof found === 'string' ? null : ramBytesOf(found),
    methods: await probeMethods({ pid: process.pid, qmp }, found),
    obstacles: [
      ...asked.obstacles,
      ...unrestorableOptions(process.options),
      ...userObstacles(process),
      ...layoutObstacles(found),
      ...disks.obstacles,
      ...blockers,
    ],
  };
  return { vm, layout, disks: disks.disks };
}

/** Of a VM that is restored, and not to be saved: without what it takes to save it. */
export async function describeRestoredVm(
  process: QemuProcess,
  connection: { qmp: QmpClient; path: string },
  surroundings: HostSurroundings,
  layout: RamLayout,
): Promise<Vm> {
  const asked = await askVm(process, connection, surroundings);
  return { ...asked, ramBytes: ramBytesOf(layout), methods: noMethod('it is being restored') };
}

/** What takes no look at its memory and disks. */
async function askVm(
  process: QemuProcess,
  { qmp, path }: { qmp: QmpClient; path: string },
  surroundings: HostSurroundings,
): Promise<Omit<Vm, 'ramBytes' | 'methods'>> {
  const [version, { nics, obstacles }, machine, kvm, { status }] = await Promise.all([
    qmp.execute('query-version'),
    describeNics(process, qmp, surroundings),
    qomGet(qmp, '/machine', 'type'),
    qmp.execute('query-kvm'),
    qmp.execute('query-status'),
  ]);
  const { qemu } = version as { qemu: Record<'major' | 'minor' | 'micro', number> };
  return {
    name: process.name,
    pid: process.pid,
    exe: process.exe,
    argv: formatCommandLine(withoutRestoreOptions(process.options)),
    qmpSocket: path,
    qemuVersion: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
    machineType: typeof machine === 'string' ? machine.replace(/-machine$/, '') : null,
    accelerator: kvm.enabled ? 'kvm' : 'tcg',
    status,
    nics,
    obstacles,
  };
}

function unreachableVm(process: QemuProcess, reason: string): Vm {
  return {
    name: process.name,
    pid: process.pid,
    exe: process.exe,
    argv: formatCommandLine(withoutRestoreOptions(process.options)),
    qmpSocket: null,
    qemuVersion: null,
    machineType: null,
    accelerator: null,
    ramBytes: null,
    status: null,
    nics: [],
    methods: noMethod(reason),
    obstacles: [reason],
  };
}

/** A restore starts QEMU as root, which opens what is stored, and lets it become that user (-runas) then. */
function userObstacles({ uid, options }: QemuProcess): string[] {
  const denied = all(options, 'sandbox').some(
    (value) => parseParameters(value, 'enable').get('elevateprivileges') === 'deny',
  );
  return uid === 0 || !denied
    ? []
    : [
        `its QEMU runs as user ${uid} and -sandbox elevateprivileges=deny: a restore, which starts it as root, could not let it become that user`,
      ];
}

const layoutObstacles = (layout: RamLayout | string) => (typeof layout === 'string' ? [layout] : []);

async function describeNics(process: QemuProcess, qmp: QmpClient, surroundings: HostSurroundings) {
  const pairs = distinct(parseInfoNetwork(await hmp(qmp, 'info network')));
  const descriptors = readTapDescriptors(process.pid);
  const vhost = usesVhost(process.pid);
  const nics: Vm['nics'] = [];
  const obstacles: string[] = [];
  for (const pair of pairs) {
    const tap = tapOf(pair, descriptors);
    const link = surroundings.links.find(({ name }) => name === tap?.tap);
    if (tap === null || link === undefined) {
      obstacles.push(nicObstacle(pair, tap));
      continue;
    }
    nics.push({
      netdev: pair.netdev,
      model: pair.model,
      mac: pair.mac,
      tap: tap.tap,
      ifindex: link.ifindex,
      vnetHdr: hasVnetHdr(process.pid, tap.fd),
      queues: descriptors.filter((descriptor) => descriptor.tap === tap.tap).length,
      vhost: vhost && wantsVhost(process, pair.netdev),
      mtu: link.mtu,
      switchPort: surroundings.switchPorts.get(tap.tap) ?? null,
    });
  }
  return { nics, obstacles };
}

/** QEMU prints a NIC with several queues once for each (print_net_client in its net/net.c). */
function distinct(pairs: readonly NetworkPair[]): NetworkPair[] {
  return [...new Map(pairs.toReversed().map((pair) => [pair.netdev, pair])).values()].toReversed();
}

/** Whether this one of a VM's NICs may be the one with vhost; unknown of one that was plugged in later. */
function wantsVhost({ options }: QemuProcess, netdev: string): boolean {
  const own = all(options, 'netdev')
    .map((value) => parseParameters(value, 'type'))
    .find((parameters) => parameters.get('id') === netdev);
  return own === undefined || own.get('vhost') === 'on' || own.get('vhostforce') === 'on';
}

function nicObstacle({ netdev, backend }: NetworkPair, tap: TapDescriptor | null): string {
  return tap === null
    ? `NIC ${netdev} is of type ${backend}: its frames cannot be held (only taps can)`
    : `NIC ${netdev} uses tap ${tap.tap}, which is not in this network namespace`;
}

/** By name where QEMU prints it; a tap that came as a descriptor is found by its number. */
function tapOf(pair: NetworkPair, descriptors: readonly TapDescriptor[]): TapDescriptor | null {
  if (pair.backend !== 'tap') return null;
  const name = /(?:^|,)ifname=([^,]+)/.exec(pair.backendInfo)?.[1];
  const fd = /(?:^|,)fd=(\d+)/.exec(pair.backendInfo)?.[1];
  return descriptors.find((tap) => tap.tap === name || tap.fd === Number(fd)) ?? null;
}

function hasVnetHdr(pid: number, fd: number): boolean {
  const own = duplicateDescriptor({ pid, fd });
  try {
    return vnetHeaderBytes(own) > 0;
  } finally {
    closeDescriptor(own);
  }
}

async function migrationBlockers(qmp: QmpClient): Promise<string[]> {
  const info = (await qmp.execute('query-migrate')) as { 'blocked-reasons'?: readonly string[] };
  return (info['blocked-reasons'] ?? []).map((reason) => `QEMU cannot save its devices: ${reason}`);
}

/** @throws StaghornError 'vm-unfit' with every obstacle of every VM at once. */
export function requireFit(vms: readonly Vm[]): void {
  const problems = vms.flatMap(({ name, obstacles }) =>
    obstacles.map((obstacle) => `VM ${name}: ${obstacle}`),
  );
  if (problems.length === 0) return;
  throw new StaghornError('vm-unfit', problems.join('; '), { context: { problems } });
}

import type { ExperimentInput, ExperimentVm, Snapshot, StoredFrame } from '../../src/protocol/resources.ts';

export const labInput: ExperimentInput = {
  name: 'lab',
  hosts: [{ name: 'red' }, { name: 'blue', ssh: 'blue-alias', vms: ['blue-vm'] }],
};

export function makeVm(host: string, status: string): ExperimentVm {
  return {
    host,
    name: `${host}-vm`,
    pid: 4711,
    exe: '/usr/bin/qemu-system-x86_64',
    argv: ['qemu-system-x86_64', '-name', `${host}-vm`],
    qmpSocket: '/run/qmp',
    qemuVersion: '7.2.22',
    machineType: 'pc-i440fx-7.2',
    accelerator: 'tcg',
    ramBytes: 128 * 1024 * 1024,
    status,
    nics: [
      {
        netdev: 'net0',
        model: 'virtio-net-pci',
        mac: '52:54:00:00:00:01',
        tap: 'tap0',
        ifindex: 7,
        vnetHdr: false,
        queues: 1,
        vhost: false,
        mtu: 1500,
        switchPort: { bridge: 'br0', port: 'tap0', vlanMode: 'access', tag: 10, trunks: [] },
      },
    ],
    methods: { fork: null, background: null, precopy: null, shared: 'a private mapping', 'stop-copy': null },
    obstacles: [],
  };
}

export function makeSnapshot(number: number, given: Partial<Snapshot> = {}): Snapshot {
  const vms = ['red', 'blue'].map((host, index) => ({
    host,
    name: `${host}-vm`,
    method: 'fork' as const,
    pauseNs: 9_000_000 + index,
    stopOffsetNs: index * 350_000,
    resumeOffsetNs: 9_000_000 + index * 350_001,
    ramBytes: 128 * 1024 * 1024,
    stateBytes: 13_000,
    framesInFlight: 1,
  }));
  return {
    id: `20261122T15120${number}Z-${number.toString(16).padStart(6, '0')}`,
    experiment: 'lab',
    name: null,
    description: null,
    labels: {},
    parent: null,
    createdAt: '2026-11-22T15:12:00.000Z',
    stoppedAt: '2026-11-22T15:12:00.321Z',
    state: 'sealed',
    methods: ['fork'],
    skewNs: 350_000,
    clockErrorNs: 20_000,
    hosts: [...new Set(vms.map(({ host }) => host))].map((host) => ({
      host,
      clockErrorNs: 10_000,
      clockSource: 'exchanges',
      wakeLatenessNs: 600,
      realtime: true,
    })),
    pauseNs: { min: 9_000_000, max: 9_000_001 },
    drainMs: 4.5,
    provenPaths: 2,
    framesInFlight: 2,
    bytes: 256 * 1024 * 1024,
    external: [],
    warnings: [],
    vms,
    ...given,
  };
}

export function makeFrame(host: string, vm: string): StoredFrame {
  const data = Buffer.from(`525400000001525400000002${'0800'}${Buffer.from(vm).toString('hex')}`, 'hex');
  return { host, vm, tap: 'tap0', offsetNs: 1_500_000, length: data.length, data: data.toString('base64') };
}

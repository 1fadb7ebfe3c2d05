import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { VmGroup } from '../../src/agent/session/vm-group.ts';
import { monotonicNs } from '../../src/native/clock.ts';
import { sendFrames } from '../../src/native/gate.ts';
import { readLinks } from '../../src/native/netlink.ts';
import { makePersistentTap, readSentFrames } from '../../src/native/tap.ts';
import { VmPorts } from '../../src/network/vm-ports.ts';
import { ControlledVm } from '../../src/vmm/controlled-vm.ts';
import { readQemuProcess } from '../../src/vmm/qemu-process.ts';
import { NetworkLab, numberedFrame, numbers, until } from '../network/network-lab.ts';
import { FrameGuest, FrameGuestImage } from './frame-guest.ts';

const TAP = 'tap-nics';
const FLOWS = 8;

let image: FrameGuestImage;
let lab: NetworkLab;
let folder: string;
const disposals: (() => unknown)[] = [];

beforeAll(async () => {
  image = await FrameGuestImage.build();
}, 300_000);

afterAll(() => image.remove());

beforeEach(() => {
  lab = NetworkLab.enter();
  folder = mkdtempSync(join(tmpdir(), 'staghorn-nics-'));
});

afterEach(async () => {
  for (const dispose of disposals.splice(0).reverse()) await dispose();
  lab.leave();
  rmSync(folder, { recursive: true });
});

/** Frames of several flows, which a tap with several queues spreads over them. */
function send(from: number, to: number): void {
  const frames = numbers(from, to).map((number) => {
    const frame = numberedFrame(number, 60 + (number % 5) * 350);
    frame[11] = number % FLOWS;
    return frame;
  });
  sendFrames(lab.ifindex(TAP), frames);
}

const flow = (received: readonly number[], which: number) =>
  received.filter((number) => number % FLOWS === which);

async function groupOf(guest: FrameGuest): Promise<VmGroup> {
  guest.qemu.qmp.socket.destroy(); // QEMU serves one client a socket
  const process = (await readQemuProcess(guest.qemu.pid))!;
  const vm = await ControlledVm.open(process, { links: readLinks(), switchPorts: new Map() });
  const ports = VmPorts.create({ ports: VmGroup.portsOf([vm]), ringBytes: 1 << 20, hold: false });
  const group = new VmGroup([vm], ports);
  disposals.push(() => group.close());
  ports.prepareLeftovers(join(folder, 'leftovers'));
  ports.attach();
  return group;
}

/** QEMU's rtl8139 drops what its guest has no descriptor for, of which the driver gives it 64. */
const kinds = [
  { model: 'e1000', queues: 1, vnetHdr: false, burst: 300 },
  { model: 'rtl8139', queues: 1, vnetHdr: true, burst: 20 },
  { model: 'virtio-net-pci', queues: 2, vnetHdr: true, burst: 300 },
] as const;

describe.each(kinds)('a VM with NIC $model and $queues queues', ({ model, queues, vnetHdr, burst }) => {
  it('gets every frame once and in order that was in its ring at the cut, or held', async () => {
    makePersistentTap({ name: TAP, vnetHdr, multiQueue: queues > 1 });
    lab.ip('link', 'set', TAP, 'up');
    const [many, device] = queues > 1 ? [`,queues=${queues}`, `,mq=on,vectors=${2 * queues + 2}`] : ['', ''];
    const guest = await FrameGuest.start(image, `${model}-${queues}`, [
      ...[
        '-netdev',
        `tap,id=n0,ifname=${TAP},script=no,downscript=no,vnet_hdr=${vnetHdr ? 'on' : 'off'}${many}`,
      ],
      ...['-device', `${model},netdev=n0,romfile=${device}`],
    ]);
    disposals.push(() => guest.qemu.stop());
    const group = await groupOf(guest);
    expect(group.vms[0]?.vm.nics).toMatchObject([{ model, queues, vhost: false, tap: TAP }]);
    expect(group.vms[0]?.taps[0]?.fds).toHaveLength(queues);

    const ends = numbers(1, 5).map((part) => part * burst) as [number, number, number, number];
    const [before, left, heldTo, all] = ends;
    send(0, before);
    await guest.has(before);
    // A VM that gets no CPU: what comes stays in its ring.
    process.kill(guest.qemu.pid, 'SIGSTOP');
    send(before, left);
    const stops = new Map<string, bigint>();
    const cut = group.stopAt(monotonicNs() + 30_000_000n, AbortSignal.timeout(60_000), (name, atNs) =>
      stops.set(name, atNs),
    );
    await until(() => readSentFrames().get(TAP) === BigInt(left), 'the rings were read');
    process.kill(guest.qemu.pid, 'SIGCONT');
    expect((await cut).framesFromRings).toBe(burst);
    expect(group.warnings).toEqual([expect.stringContaining(`left ${burst} frames unread in tap ${TAP}`)]);

    send(left, heldTo);
    const held = group.ports.held();
    expect(held.map(({ frame }) => frame.readUInt32BE(14)).toSorted((a, b) => a - b)).toEqual(
      numbers(before, heldTo),
    );
    await group.resumeAt(new Map(), stops);
    expect(await group.replayed()).toMatchObject({ delivered: 2 * burst });
    await guest.has(heldTo);
    send(heldTo, all);
    const received = await guest.has(all);
    expect(received.toSorted((a, b) => a - b)).toEqual(numbers(0, all));
    for (const which of numbers(0, FLOWS))
      expect(flow(received, which)).toEqual(flow(numbers(0, all), which));
    if (queues === 1) expect(received).toEqual(numbers(0, all));
  }, 120_000);
});

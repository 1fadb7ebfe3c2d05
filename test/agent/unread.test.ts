import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VmGroup } from '../../src/agent/session/vm-group.ts';
import { monotonicNs } from '../../src/native/clock.ts';
import { waitsToRead } from '../../src/native/descriptors.ts';
import { sendFrames } from '../../src/native/gate.ts';
import { readLinks } from '../../src/native/netlink.ts';
import { makePersistentTap, readSentFrames } from '../../src/native/tap.ts';
import { VmPorts } from '../../src/network/vm-ports.ts';
import { ControlledVm } from '../../src/vmm/controlled-vm.ts';
import { readQemuProcess } from '../../src/vmm/qemu-process.ts';
import { NetworkLab, numberedFrame, numberOf, numbers, until } from '../network/network-lab.ts';
import { TestQemu } from '../native/qemu.ts';

const TAP = 'tap-unread';

/** A guest without a driver gives its NIC no buffers: QEMU reads one frame, and keeps it to itself. */
describe('a VM whose guest has no buffers', () => {
  let lab: NetworkLab;
  let folder: string;
  let qemu: TestQemu;
  let group: VmGroup;
  const stops = new Map<string, bigint>();

  beforeEach(async () => {
    lab = NetworkLab.enter();
    folder = mkdtempSync(join(tmpdir(), 'staghorn-unread-'));
    makePersistentTap({ name: TAP, vnetHdr: true });
    lab.ip('link', 'set', TAP, 'up');
    qemu = await TestQemu.startCounting([
      ...['-name', 'unread', '-m', '64', '-device', 'e1000,netdev=n0,romfile='],
      ...['-netdev', `tap,id=n0,ifname=${TAP},script=no,downscript=no`],
    ]);
  });

  afterEach(async () => {
    await group?.close();
    await qemu.stop();
    lab.leave();
    rmSync(folder, { recursive: true });
  });

  let armed = 0;

  async function arm(): Promise<ControlledVm> {
    qemu.qmp.socket.destroy(); // QEMU serves one client a socket
    const vm = await ControlledVm.open((await readQemuProcess(qemu.pid))!, {
      links: readLinks(),
      switchPorts: new Map(),
    });
    const ports = VmPorts.create({ ports: VmGroup.portsOf([vm]), ringBytes: 1 << 20, hold: false });
    group = new VmGroup([vm], ports);
    ports.prepareLeftovers(join(folder, `leftovers-${armed++}`));
    ports.attach();
    return vm;
  }

  const send = (from: number, to: number) =>
    sendFrames(
      lab.ifindex(TAP),
      numbers(from, to).map((number) => numberedFrame(number)),
    );
  const read = () => Number(readSentFrames().get(TAP));
  const cut = (aheadNs = 30_000_000n) =>
    group.stopAt(monotonicNs() + aheadNs, AbortSignal.timeout(60_000), (name, atNs) => stops.set(name, atNs));

  it('loses that frame at any stop, and reads another one then', async () => {
    send(0, 10);
    await until(() => read() === 1, 'QEMU read one frame');
    for (const times of [1, 2, 3]) {
      await qemu.qmp.execute('stop');
      await until(() => read() === 1 + times, 'QEMU read another one in its place');
      await qemu.qmp.execute('cont');
    }
  });

  it('is told from one that reads, by what its QEMU waits for', async () => {
    const { taps } = await arm();
    await until(() => waitsToRead(qemu.pid, taps[0]!.qemuFds)?.[0] === true, 'QEMU waits for the tap');
    send(0, 1);
    await until(() => waitsToRead(qemu.pid, taps[0]!.qemuFds)?.[0] === false, 'QEMU does so no more');
  });

  it('is named in a warning if QEMU drops a frame, though its ring is empty', async () => {
    // On a busy machine QEMU may not have come round to waiting for anything by the cut, and that shows nothing.
    for (let tries = 0; tries === 0 || (group.warnings.length === 0 && tries < 10); tries++) {
      if (tries > 0) await group.close();
      const { taps } = await arm();
      await until(() => waitsToRead(qemu.pid, taps[0]!.qemuFds)?.[0] === true, 'QEMU waits for the tap');
      const [before, cutting] = [read(), cut(200_000_000n)];
      send(tries, tries + 1);
      await until(() => read() === before + 1, 'QEMU read the frame');
      expect((await cutting).framesFromRings).toBe(0);
      await group.resumeAt(new Map(), stops);
      await group.replayed();
    }
    expect(group.warnings).toEqual([expect.stringMatching(/VM unread had no buffer .* tap tap-unread/)]);
  });

  it('is not named where nothing came', async () => {
    await arm();
    expect((await cut()).framesFromRings).toBe(0);
    expect(group.warnings).toEqual([]);
    await group.resumeAt(new Map(), stops);
  });

  it('gets the frames of its ring back, but for the one that QEMU had read', async () => {
    send(0, 10);
    await until(() => read() === 1, 'QEMU read one frame');
    await arm();
    expect((await cut()).framesFromRings).toBe(9);
    expect(group.ports.held().map(({ frame }) => numberOf(frame))).toEqual(numbers(1, 10));
    await group.resumeAt(new Map(), stops);
    expect(await group.replayed()).toMatchObject({ delivered: 9 });
  });
});

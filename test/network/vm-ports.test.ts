import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VmPorts } from '../../src/network/vm-ports.ts';
import { sendFrames } from '../../src/native/gate.ts';
import { NetworkLab, numberedFrame } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

describe('the ports of VMs that are restored', () => {
  let lab: NetworkLab;
  let tap: LabTap;
  let ports: VmPorts;
  const { signal } = new AbortController();

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
    const port = { vm: 'a', name: tap.name, ifindex: tap.ifindex, tapFds: [tap.fd] };
    ports = VmPorts.create({ ports: [port], ringBytes: 1 << 20, hold: true });
    ports.attach();
  });

  afterEach(() => {
    ports.close();
    lab.leave();
  });

  const stored = (number: number) => ({
    port: tap.name,
    offsetNs: 0n,
    gsoSize: 0,
    frame: numberedFrame(number),
  });
  const replay = () => {
    const atNs = process.hrtime.bigint();
    return ports.replay(atNs, new Map([['a', { atNs, shiftNs: 0n }]]));
  };

  it('get the frames of the snapshot, and none of the time line that was given up', async () => {
    sendFrames(tap.ifindex, [numberedFrame(1), numberedFrame(2)]);
    const flushed = await ports.flush({ boundMs: 5000, quietMs: 2, watched: [], signal });
    expect(flushed.discarded).toBe(2);
    ports.preload([stored(3), stored(4)]);
    const reader = lab.reader(tap);
    await replay();
    expect(await reader.have(2)).toEqual([3, 4]);
  });

  it('get after a crash only the stored frames that they have not been given', async () => {
    sendFrames(tap.ifindex, [numberedFrame(1)]);
    await ports.flush({ boundMs: 5000, quietMs: 2, watched: [], signal });
    ports.preload([stored(3), stored(4)]);
    const begins = new Map([[tap.name, ports.preloadedFrom(ports.ports[0]!)]]);
    const reader = lab.reader(tap);
    await replay();
    // Who comes after finds counters that have grown by what was delivered.
    ports.preload([stored(3), stored(4), stored(5)], begins);
    await replay();
    expect(await reader.have(3)).toEqual([3, 4, 5]);
  });
});

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate } from '../../../src/native/gate.ts';
import { enterNetworkNamespace } from '../../../src/native/netlink.ts';
import { openTap } from '../../../src/native/tap.ts';
import { NetworkLab, until } from '../../network/network-lab.ts';
import { DatapathSwitch } from '../../network/datapath-switch.ts';
import { guestProgram } from './guest-program.ts';

const PORT = 7000;
const STREAM_BYTES = 6_000_000;
const HOLDS = 4;
const addresses = ['10.0.0.1', '10.0.0.2'] as const;
/** Linux, Documentation/networking/ip-sysctl.rst: no tail loss probe, no RACK, duplicate ACKs as seldom as can be told. */
const unhurried = [
  ['tcp_early_retrans', '0'],
  ['tcp_recovery', '0'],
  ['tcp_reordering', '300'],
] as const;
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

/** "Tcp: RetransSegs" of the network namespace that the process is in (RFC 4022, tcpRetransSegs). */
function retransmitted(): number {
  const lines = readFileSync('/proc/net/snmp', 'utf8').split('\n');
  const [names = [], values = []] = lines
    .filter((line) => line.startsWith('Tcp:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf('RetransSegs')]);
}

describe("TCP between two guests on Open vSwitch's datapath in the kernel, offloads on", () => {
  let lab: NetworkLab;
  let ovs: DatapathSwitch;
  let gate: Gate;
  let server: Server | undefined;
  let client: Socket | undefined;
  const children: ChildProcess[] = [];
  const fds: number[] = [];
  let namespaces: string[];

  beforeEach(async () => {
    lab = NetworkLab.enter();
    ovs = await DatapathSwitch.start();
    ovs.bridge('br0');
    gate = Gate.create({ slots: 2, ringBytes: 32 << 20 });
    namespaces = [];
  });

  afterEach(async () => {
    client?.destroy();
    server?.close();
    gate.close();
    for (const child of children.splice(0)) {
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
    for (const fd of fds.splice(0)) closeSync(fd);
    enterNetworkNamespace(`/run/netns/${lab.namespace}`);
    await ovs.stop();
    lab.leave();
  });

  /**
   * In the guest: its address; and nothing that would retransmit because of a pause, or because the network's own
   * two processors overtake each other (order is judged by other tests): what is sent twice here was lost.
   */
  function configure(device: string, place: number): void {
    for (const [name, value] of unhurried) writeFileSync(`/proc/sys/net/ipv4/${name}`, value);
    lab.ip('address', 'add', `${addresses[place]}/24`, 'dev', device);
    lab.ip('link', 'set', device, 'up');
    const route = ['10.0.0.0/24', 'dev', device, 'proto', 'kernel', 'src', String(addresses[place])];
    lab.ip('route', 'change', ...route, 'scope', 'link', 'rto_min', '30s');
  }

  /** A guest behind a tap, which a process reads and writes as QEMU does. */
  async function tapGuest(place: number): Promise<number> {
    const tap = lab.tap({ vnetHdr: true });
    let inner = -1;
    const namespace = lab.elsewhere([], () => {
      inner = openTap({ name: 'eth0', vnetHdr: true });
    });
    fds.push(inner);
    namespaces.push(namespace);
    const child = spawn(guestProgram('guest-nic'), { stdio: ['ignore', 'pipe', 'inherit', tap.fd, inner] });
    children.push(child);
    if (child.stdout === null) throw new Error('the guest has no output');
    await once(child.stdout, 'data');
    inside(place, () => {
      configure('eth0', place);
    });
    ovs.port('br0', tap.name);
    gate.attachTap({ fd: tap.fd, slot: place });
    return tap.ifindex;
  }

  /** A guest that is a network namespace, as a container is. */
  async function vethGuest(place: number): Promise<number> {
    const [near, far] = await lab.veth();
    namespaces.push(
      lab.elsewhere([far], () => {
        configure(far, place);
      }),
    );
    ovs.port('br0', near);
    gate.attachEgress({ ifindex: lab.ifindex(near), slot: place });
    return lab.ifindex(near);
  }

  function inside<Result>(place: number, action: () => Result): Result {
    enterNetworkNamespace(`/run/netns/${namespaces[place]}`);
    try {
      return action();
    } finally {
      enterNetworkNamespace(`/run/netns/${lab.namespace}`);
    }
  }

  async function connectGuests(onData: (data: Buffer) => void): Promise<Socket> {
    server = createServer((socket) => {
      socket.on('data', onData);
    });
    inside(1, () => server?.listen(PORT));
    await once(server, 'listening');
    enterNetworkNamespace(`/run/netns/${namespaces[0]}`); // its socket is made a moment later
    const socket = connect(PORT, addresses[1]);
    client = socket;
    await once(socket, 'connect');
    enterNetworkNamespace(`/run/netns/${lab.namespace}`);
    return socket;
  }

  it.each([
    ['taps', tapGuest],
    ['veths', vethGuest],
  ] as const)('between %s is whole after holds, and nothing was sent twice', async (_, makeGuest) => {
    const ports = [await makeGuest(0), await makeGuest(1)];
    const received: Buffer[] = [];
    let receivedBytes = 0;
    const socket = await connectGuests((data) => {
      received.push(data);
      receivedBytes += data.length;
    });
    const before = [0, 1].map((place) => inside(place, retransmitted));
    const stream = randomBytes(STREAM_BYTES);
    let largest = 0;
    for (let part = 0; part < HOLDS; part++) {
      gate.setMode('hold');
      socket.write(stream.subarray((part * STREAM_BYTES) / HOLDS, ((part + 1) * STREAM_BYTES) / HOLDS));
      await until(() => gate.countHeld().some((count) => count > 0), 'frames are held');
      largest = Math.max(
        largest,
        ...gate.peek().map(({ frame, gsoSize }) => (gsoSize > 0 ? frame.length : 0)),
      );
      const stoppedNs = process.hrtime.bigint();
      const report = await gate.replay({
        ports: ports.map((ifindex, slot) => ({ slot, ifindex, shiftNs: 0n, notBeforeNs: stoppedNs })),
      });
      for (const port of report.ports) expect(port).toMatchObject({ undeliverable: 0, missing: 0 });
    }
    await until(() => receivedBytes >= STREAM_BYTES, 'the whole stream arrived', 60_000);
    expect(sha256(Buffer.concat(received))).toBe(sha256(stream));
    expect(largest).toBeGreaterThan(1514);
    expect([0, 1].map((place) => inside(place, retransmitted))).toEqual(before);
    for (const slot of [0, 1]) expect(gate.counters(slot)).toMatchObject({ failed: 0 });
  });
});

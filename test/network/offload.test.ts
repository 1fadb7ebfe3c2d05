import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate } from '../../src/native/gate.ts';
import { NetworkLab, until } from './network-lab.ts';

const PORT = 7000;

/** What the kernel's own TCP sends over a veth has unfinished checksums, and is to be segmented later. */
describe('a gate at egress, and TCP of the kernel', () => {
  let lab: NetworkLab;
  let gate: Gate;
  let server: Server;
  let client: Socket | undefined;
  let device: number;
  const received = createHash('sha256');
  let receivedBytes = 0;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    gate = Gate.create({ slots: 1, ringBytes: 8 << 20 });
    const [near, far] = await lab.veth();
    device = lab.ifindex(near);
    lab.ip('address', 'add', '10.0.0.1/24', 'dev', near);
    server = createServer((socket) => {
      socket.on('data', (data) => {
        received.update(data);
        receivedBytes += data.length;
      });
    });
    const other = lab.elsewhere([far], () => {
      lab.ip('address', 'add', '10.0.0.2/24', 'dev', far);
      lab.ip('link', 'set', far, 'up');
      server.listen(PORT); // without a host: with one, the socket is made later, and not in there
    });
    await once(server, 'listening');
    await lab.isUp(near);
    await lab.isUp(far, other);
    client = connect(PORT, '10.0.0.2');
    await once(client, 'connect');
    gate.attachEgress({ ifindex: device, slot: 0 });
  });

  afterEach(() => {
    client?.destroy();
    server.close();
    gate.close();
    lab.leave();
  });

  it('returns frames that are still to be segmented and summed up, so that the stream arrives whole', async () => {
    const payload = randomBytes(2_000_000);
    gate.setMode('hold');
    client?.write(payload);
    await until(() => gate.peek().some(({ gsoSize }) => gsoSize > 0), 'a frame to be segmented is held');
    expect(receivedBytes).toBe(0);
    expect(gate.peek().some(({ frame }) => frame.length > 1514)).toBe(true);
    const held = gate.countHeld()[0] ?? 0;
    const resume = process.hrtime.bigint();
    const report = await gate.replay({
      ports: [{ slot: 0, ifindex: device, shiftNs: 0n, notBeforeNs: resume }],
    });
    expect(report.ports[0]).toMatchObject({ undeliverable: 0, missing: 0 });
    expect(report.ports[0]?.delivered).toBeGreaterThanOrEqual(held);
    await until(() => receivedBytes >= payload.length, 'the whole stream arrived');
    expect(received.digest('hex')).toBe(createHash('sha256').update(payload).digest('hex'));
    expect(gate.counters(0)).toMatchObject({ failed: 0 });
    expect(gate.counters(0).passed).toBeGreaterThan(0);
  });
});

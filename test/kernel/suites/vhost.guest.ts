import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate, sendFrames } from '../../../src/native/gate.ts';
import { setLink } from '../../../src/native/netlink.ts';
import { NetworkLab, numberedFrame, numberOf, numbers, until } from '../../network/network-lab.ts';
import type { LabTap } from '../../network/network-lab.ts';
import { guestProgram } from './guest-program.ts';

const PREFIX_BYTES = 8;
const hex = (frame: Buffer) => frame.toString('hex');

/** What vhost-net puts into a virtqueue, as vhost-reader.c tells it. */
class VhostReader {
  readonly frames: Buffer[] = [];
  readonly #child: ChildProcess;
  #rest = Buffer.alloc(0);
  #ready = false;

  constructor(tap: LabTap) {
    this.#child = spawn(guestProgram('vhost-reader'), { stdio: ['ignore', 'pipe', 'inherit', tap.fd] });
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#take(chunk);
    });
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= PREFIX_BYTES) {
      const end = PREFIX_BYTES + this.#rest.readUInt32LE(0);
      if (this.#rest.length < end) return;
      if (this.#ready) this.frames.push(Buffer.from(this.#rest.subarray(PREFIX_BYTES, end)));
      this.#ready = true;
      this.#rest = this.#rest.subarray(end);
    }
  }

  async ready(): Promise<void> {
    await until(() => this.#ready || this.#child.exitCode !== null, 'vhost-net reads the tap');
    expect(this.#child.exitCode).toBeNull();
  }

  async have(count: number): Promise<void> {
    await until(() => this.frames.length >= count, `${count} frames are in the virtqueue`);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }
}

describe('a gate in a tap that vhost-net reads', () => {
  let lab: NetworkLab;
  let tap: LabTap;
  let gate: Gate;
  let reader: VhostReader;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    tap = lab.tap({ vnetHdr: true });
    gate = Gate.create({ slots: 1, ringBytes: 4 << 20 });
    gate.attachTap({ fd: tap.fd, slot: 0 });
    reader = new VhostReader(tap);
    await reader.ready();
  });

  afterEach(async () => {
    await reader.stop();
    gate.close();
    lab.leave();
  });

  const replay = (notBeforeNs = process.hrtime.bigint()) =>
    gate.replay({ ports: [{ slot: 0, ifindex: tap.ifindex, shiftNs: 0n, notBeforeNs }] });

  it('lets nothing into the virtqueue while it holds, and returns all of it in order, byte for byte', async () => {
    const frames = numbers(0, 100).map((number) => numberedFrame(number, 60 + 14 * number));
    sendFrames(tap.ifindex, frames.slice(0, 40));
    await reader.have(40);
    gate.setMode('hold');
    sendFrames(tap.ifindex, frames.slice(40));
    expect(gate.countHeld()[0]).toBe(60);
    expect(reader.frames).toHaveLength(40);
    expect((await replay()).ports[0]).toMatchObject({ delivered: 60, undeliverable: 0, missing: 0 });
    await reader.have(100);
    expect(reader.frames.map(hex)).toEqual(frames.map(hex));
  });

  it('keeps the order while frames go on coming, again and again', async () => {
    setLink({ ifindex: tap.ifindex, txQueueLen: 10_000 });
    let sent = 0;
    const flood = (count: number) => {
      sendFrames(
        tap.ifindex,
        numbers(sent, sent + count).map((number) => numberedFrame(number)),
      );
      sent += count;
    };
    for (const round of numbers(0, 10)) {
      gate.setMode('hold');
      flood(30);
      const returned = replay(process.hrtime.bigint() + BigInt(round) * 5_000_000n);
      flood(200);
      await returned;
      flood(5);
    }
    await reader.have(sent);
    expect(reader.frames.map(numberOf)).toEqual(numbers(0, sent));
    expect(gate.counters(0)).toMatchObject({ failed: 0 });
  });
});

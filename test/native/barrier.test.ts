import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { runCut, runResume } from '../../src/native/barrier.ts';
import type { CutOptions, CutTap } from '../../src/native/barrier.ts';
import { monotonicNs } from '../../src/native/clock.ts';
import { closeDescriptor, duplicateDescriptor } from '../../src/native/descriptors.ts';
import { LeftoverJournal, leftoverRoomBytes } from '../../src/native/leftovers.ts';
import { eventually, TestQemu } from './qemu.ts';
import { TestTap } from './tap.ts';

const line = (execute: string) => Buffer.from(`${JSON.stringify({ execute })}\n`);
const inMs = (ms: number) => monotonicNs() + BigInt(ms * 1e6);
const cutOf = (options: Partial<CutOptions>): CutOptions => ({
  atNs: inMs(50),
  spinNs: 200_000,
  modeWords: [],
  taps: [],
  ringBoundNs: 5_000_000,
  writes: [],
  journal: null,
  ...options,
});
const disposals: (() => void | Promise<void>)[] = [];

afterEach(async () => {
  for (const dispose of disposals.splice(0).reverse()) await dispose();
});

async function startQemu(): Promise<TestQemu> {
  const qemu = await TestQemu.startCounting();
  disposals.push(() => qemu.stop());
  return qemu;
}

describe('the cut', () => {
  test('stops two VMs and holds the gates, at T and not before', async () => {
    const qemus = [await startQemu(), await startQemu()];
    const modeWords = [new ArrayBuffer(8), new ArrayBuffer(4)];
    const atNs = inMs(100);
    const writes = qemus.map((qemu) => ({ fd: qemu.qmp.fd, bytes: line('stop') }));
    const answers = qemus.map((qemu) => qemu.qmp.answer());
    const times = await runCut(cutOf({ atNs, modeWords, writes }));
    await Promise.all(answers);
    await Promise.all(qemus.map((qemu) => qemu.qmp.event('STOP')));
    expect(await Promise.all(qemus.map((qemu) => qemu.status()))).toEqual(['paused', 'paused']);
    expect(modeWords.map((word) => new Uint32Array(word))).toEqual([Uint32Array.of(1, 0), Uint32Array.of(1)]);
    expect(times.writes.map((write) => write.error)).toEqual([null, null]);
    const order = [
      atNs,
      times.wokeNs,
      times.flippedNs,
      times.ringsEmptyNs ?? 0n,
      ...times.writes.map((w) => w.writtenNs),
    ];
    expect(order).toEqual([...order].sort((a, b) => (a < b ? -1 : 1)));
  });

  test('writes to all others where one descriptor is closed and one peer has gone', async () => {
    const qemus = [await startQemu(), await startQemu()];
    const [first, last] = qemus.map((qemu) => ({ fd: qemu.qmp.fd, bytes: line('stop') }));
    if (!first || !last) throw new Error('unreachable');
    const closed = 999_999; // a number that was open before may be taken again at any time
    const gone = await startQemu();
    // Node closes its own descriptor when the peer goes; the barrier may hold one that it has not seen closed.
    const goneFd = duplicateDescriptor({ pid: process.pid, fd: gone.qmp.fd });
    disposals.push(() => closeDescriptor(goneFd));
    gone.process.kill('SIGKILL');
    await once(gone.process, 'exit');
    const answers = qemus.map((qemu) => qemu.qmp.answer());
    const times = await runCut(
      cutOf({
        writes: [first, { fd: closed, bytes: line('stop') }, { fd: goneFd, bytes: line('stop') }, last],
      }),
    );
    await Promise.all(answers);
    await Promise.all(qemus.map((qemu) => qemu.qmp.event('STOP')));
    const codes = times.writes.map((write) => write.error?.code);
    expect(codes[0]).toBeUndefined();
    expect(codes[1]).toBe('EBADF');
    expect(codes[2]).toBe('EPIPE');
    expect(codes[3]).toBeUndefined();
  });

  test('can be cancelled until T, and then nothing has happened', async () => {
    const qemu = await startQemu();
    const modeWord = new ArrayBuffer(4);
    const controller = new AbortController();
    const writes = [{ fd: qemu.qmp.fd, bytes: line('stop') }];
    const cut = runCut(
      cutOf({ atNs: inMs(60_000), modeWords: [modeWord], writes, signal: controller.signal }),
    );
    controller.abort(new Error('called off'));
    await expect(cut).rejects.toThrow('called off');
    expect(new Uint32Array(modeWord)[0]).toBe(0);
    expect(await qemu.status()).toBe('running');
  });
});

describe('a QEMU whose main thread stands still for its command', () => {
  const command = (execute: string) => Buffer.from(JSON.stringify({ execute }));
  const heldOf = (qemu: TestQemu) => ({ mainThread: qemu.pid, vcpuThreads: [] });

  test('stops and goes on at the instants all the same', async () => {
    const qemus = [await startQemu(), await startQemu()];
    const told = (execute: string) =>
      qemus.map((qemu) => ({ fd: qemu.qmp.fd, bytes: command(execute), held: heldOf(qemu) }));
    let answers = qemus.map((qemu) => qemu.qmp.answer());
    await runCut(cutOf({ writes: told('stop') }));
    await Promise.all(answers);
    expect(await Promise.all(qemus.map((qemu) => qemu.status()))).toEqual(['paused', 'paused']);
    answers = qemus.map((qemu) => qemu.qmp.answer());
    const [late, early] = [inMs(120), inMs(60)];
    const writes = told('cont').map((write, i) => ({ ...write, atNs: i === 0 ? late : early }));
    const times = await runResume({ writes, spinNs: 100_000 });
    await Promise.all(answers);
    expect(await Promise.all(qemus.map((qemu) => qemu.status()))).toEqual(['running', 'running']);
    const [first, second] = times.writes;
    expect(first?.writtenNs).toBeGreaterThanOrEqual(late);
    expect(second?.writtenNs).toBeGreaterThanOrEqual(early);
    expect(second?.writtenNs).toBeLessThan(late);
  });

  test('does so with its vCPUs held too', async () => {
    const qemu = await startQemu();
    const vcpus = (await qemu.qmp.execute('query-cpus-fast')) as { 'thread-id': number }[];
    const held = { mainThread: qemu.pid, vcpuThreads: vcpus.map((cpu) => cpu['thread-id']) };
    let answer = qemu.qmp.answer();
    await runCut(cutOf({ writes: [{ fd: qemu.qmp.fd, bytes: command('stop'), held }] }));
    await answer;
    expect(await qemu.status()).toBe('paused');
    answer = qemu.qmp.answer();
    const writes = [{ fd: qemu.qmp.fd, bytes: command('cont'), held, atNs: inMs(30) }];
    await runResume({ writes, spinNs: 100_000 });
    await answer;
    expect(await qemu.status()).toBe('running');
  });
});

describe('a command of which all but the last byte is written ahead', () => {
  const bytes = Buffer.from(JSON.stringify({ execute: 'stop' }));
  const headBytes = bytes.length - 1;

  test('is carried out at T', async () => {
    const qemu = await startQemu();
    const answer = qemu.qmp.answer();
    await runCut(cutOf({ writes: [{ fd: qemu.qmp.fd, bytes, headBytes }] }));
    await answer;
    expect(await qemu.status()).toBe('paused');
  });

  test('is made one that QEMU refuses if the cut is cancelled after that', async () => {
    const peer = await connectedPeer();
    const written = await eventually(async () => cancelledAfterHead(peer));
    const qemu = await startQemu();
    await expect(qemu.qmp.answer(() => void qemu.qmp.socket.write(written))).rejects.toThrow('recalled');
    expect(await qemu.status()).toBe('running');
  });

  interface Peer {
    readonly fd: number;
    readonly far: Socket;
  }

  async function connectedPeer(): Promise<Peer> {
    const directory = mkdtempSync(join(tmpdir(), 'staghorn-barrier-'));
    const server = createServer().listen(join(directory, 'peer'));
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const near = connect(join(directory, 'peer'));
    const [far] = await accepted;
    await eventually(async () => !near.connecting);
    disposals.push(() => {
      for (const socket of [near, far]) socket.destroy();
      server.close();
      rmSync(directory, { recursive: true });
    });
    return { fd: (near as unknown as { _handle: { fd: number } })._handle.fd, far };
  }

  /** What came in all; undefined where the cancellation was too late. */
  async function cancelledAfterHead({ fd, far }: Peer): Promise<string | undefined> {
    const controller = new AbortController();
    let text = '';
    const listen = (chunk: Buffer) => {
      text += chunk.toString();
      controller.abort(new Error('called off'));
    };
    far.on('data', listen);
    const writes = [{ fd, bytes, headBytes }];
    const cut = runCut(cutOf({ atNs: inMs(30), spinNs: 0, writes, signal: controller.signal }));
    const cancelled = await cut.then(
      () => false,
      () => true,
    );
    await eventually(async () => text.endsWith('}'));
    far.off('data', listen);
    return cancelled ? text : undefined;
  }
});

describe("frames that stay in a tap's ring at the cut", () => {
  const texts = ['frame 0', 'frame 1', 'frame 2', 'frame 3', 'frame 4'];

  function tapWithFrames(change: Partial<CutTap> = {}): CutTap {
    const tap = new TestTap();
    disposals.push(() => tap.close());
    tap.send(texts);
    return {
      fd: tap.fd,
      headerBytes: 10,
      port: 3,
      readerThread: 0,
      qemuFd: -1,
      awaited: true,
      replaced: true,
      ...change,
    };
  }

  function journalOf(bytes: number): LeftoverJournal {
    const directory = mkdtempSync(join(tmpdir(), 'staghorn-leftovers-'));
    const journal = LeftoverJournal.create({ path: join(directory, 'frames'), bytes, nonce: 5n });
    disposals.push(() => {
      journal.close();
      rmSync(directory, { recursive: true });
    });
    return journal;
  }

  const datagrams = (frames: readonly { frame: Buffer }[]) =>
    frames.map(({ frame }) => /frame \d/.exec(frame.toString('latin1'))?.[0]).filter(Boolean);

  test('are read without their headers, in order, when the bound has passed', async () => {
    const journal = journalOf(1024 * 1024);
    const times = await runCut(cutOf({ taps: [tapWithFrames()], ringBoundNs: 1e6, journal }));
    const frames = journal.frames();
    expect(datagrams(frames)).toEqual(texts);
    for (const { frame, port, atNs } of frames) {
      expect(port).toBe(3);
      expect(atNs).toBe(times.flippedNs);
      expect([0x0800, 0x86dd]).toContain(frame.readUInt16BE(12)); // IPv4, or IPv6 of the kernel itself
    }
    expect(times.leftoversFull).toBe(false);
    expect(times.ringsEmptyNs).not.toBeNull();
  });

  test('are not waited for where nobody reads them', async () => {
    const journal = journalOf(1024 * 1024);
    const writes = [{ fd: 999_999, bytes: line('stop') }];
    const taps = [tapWithFrames({ awaited: false })];
    const times = await runCut(cutOf({ taps, ringBoundNs: 60e9, journal, writes }));
    expect(datagrams(journal.frames())).toEqual(texts);
    expect(times.writes).toHaveLength(1);
  });

  test('stay where a thread of the kernel reads them, and can be read afterwards', async () => {
    const journal = journalOf(1024 * 1024);
    const tap = tapWithFrames({ replaced: false });
    const times = await runCut(cutOf({ taps: [tap], ringBoundNs: 0, journal }));
    expect(times).toMatchObject({ ringsEmptyNs: null, leftoversFull: false });
    expect(journal.frames()).toEqual([]);
    expect(journal.readRings([tap], times.flippedNs)).toBe(true);
    expect(datagrams(journal.frames())).toEqual(texts);
  });

  test('stay there where there is no room, and the caller is told', async () => {
    const [small, large] = [journalOf(leftoverRoomBytes + 300), journalOf(1024 * 1024)];
    const taps = [tapWithFrames()];
    const times = await runCut(cutOf({ taps, ringBoundNs: 0, journal: small }));
    expect(times.leftoversFull).toBe(true);
    expect(times.ringsEmptyNs).toBeNull();
    await runCut(cutOf({ taps, ringBoundNs: 0, journal: large }));
    expect(small.frames().length).toBeGreaterThan(0);
    expect(datagrams([...small.frames(), ...large.frames()])).toEqual(texts);
  });

  test('are read while the thread that reads them otherwise stands still, which goes on afterwards', async () => {
    const qemu = await startQemu();
    const journal = journalOf(1024 * 1024);
    const answer = qemu.qmp.answer();
    const times = await runCut(
      cutOf({
        taps: [tapWithFrames({ readerThread: qemu.pid })],
        ringBoundNs: 0,
        journal,
        writes: [{ fd: qemu.qmp.fd, bytes: line('stop') }],
      }),
    );
    expect(times.readersPaused).toBe(1);
    expect(datagrams(journal.frames())).toEqual(texts);
    await answer;
    expect(await qemu.status()).toBe('paused');
  });
});

describe('the resume', () => {
  test('lets each VM go on at its own instant, in order of time', async () => {
    const qemus = [await startQemu(), await startQemu()];
    for (const qemu of qemus) await qemu.qmp.execute('stop');
    const [late, early] = [inMs(120), inMs(60)];
    const answers = qemus.map((qemu) => qemu.qmp.answer());
    const times = await runResume({
      writes: qemus.map((qemu, i) => ({
        fd: qemu.qmp.fd,
        bytes: line('cont'),
        atNs: i === 0 ? late : early,
      })),
      spinNs: 100_000,
    });
    await Promise.all(answers);
    await eventually(async () =>
      (await Promise.all(qemus.map((q) => q.status()))).every((s) => s === 'running'),
    );
    const [first, second] = times.writes;
    expect(first?.error).toBeNull();
    expect(first?.writtenNs).toBeGreaterThanOrEqual(late);
    expect(second?.writtenNs).toBeGreaterThanOrEqual(early);
    expect(second?.writtenNs).toBeLessThan(late);
  });
});

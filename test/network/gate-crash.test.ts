import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import type { GateIdentity } from '../../src/native/gate.ts';
import { setLink } from '../../src/native/netlink.ts';
import { tapRingIsEmpty } from '../../src/native/tap.ts';
import { NetworkLab, numberedFrame, numbers } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

interface Holder {
  readonly child: ChildProcess;
  readonly identity: GateIdentity;
}

describe('a gate whose process was killed', () => {
  let folder: string;
  let lab: NetworkLab;
  let tap: LabTap;
  let gate: Gate | undefined;
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'staghorn-holder-'));
    const outfile = join(folder, 'holder.mjs');
    await build({
      entryPoints: ['test/network/gate-holder.ts'],
      outfile,
      bundle: true,
      platform: 'node',
      format: 'esm',
      packages: 'external',
    });
    symlinkSync(join(process.cwd(), 'build/Release/staghorn.node'), join(folder, 'staghorn.node'));
    symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'));
  });

  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
  });

  afterEach(async () => {
    gate?.close();
    gate = undefined;
    for (const child of children.splice(0)) await kill(child);
    lab.leave();
  });

  async function kill(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  }

  async function startHolder(): Promise<Holder> {
    const child = spawn(process.execPath, [join(folder, 'holder.mjs'), String(tap.ifindex)], {
      stdio: ['pipe', 'pipe', 'inherit', tap.fd],
    });
    children.push(child);
    if (child.stdout === null) throw new Error('the holder has no output');
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const { stateMapId, ringMapId, nonce } = JSON.parse(String(line)) as Record<string, string>;
    return {
      child,
      identity: { stateMapId: Number(stateMapId), ringMapId: Number(ringMapId), nonce: BigInt(nonce ?? 0) },
    };
  }

  const send = (from: number, to: number) =>
    sendFrames(
      tap.ifindex,
      numbers(from, to).map((number) => numberedFrame(number)),
    );
  const replayAll = (opened: Gate) =>
    opened.replay({
      ports: [{ slot: 0, ifindex: tap.ifindex, shiftNs: 0n, notBeforeNs: process.hrtime.bigint() }],
    });

  it('goes on holding, and the next process returns every frame once', async () => {
    const { child, identity } = await startHolder();
    send(0, 50);
    await kill(child);
    send(50, 100);
    expect(tapRingIsEmpty(tap.fd)).toBe(true);
    gate = Gate.open(identity);
    expect(gate.mode).toBe('hold');
    expect(gate.countHeld()[0]).toBe(100);
    expect((await replayAll(gate)).ports[0]).toMatchObject({ delivered: 100, missing: 0 });
    expect(await lab.reader(tap).have(100)).toEqual(numbers(0, 100));
    expect(gate.counters(0)).toMatchObject({ diverted: 100, returned: 100, failed: 0 });
  });

  it.each([5, 40, 90])(
    'delivers no frame twice and loses none when it died after %i frames of a replay',
    async (after) => {
      // A short ring: the replay cannot come to its end while nobody reads.
      setLink({ ifindex: tap.ifindex, txQueueLen: 16 });
      const { child, identity } = await startHolder();
      const stopped = process.hrtime.bigint();
      for (const from of numbers(0, 20)) send(from * 10, from * 10 + 10);
      const reader = lab.reader(tap);
      child.stdin?.write(`${stopped}\n`);
      await reader.have(after);
      reader.stop();
      await kill(child);
      const before = reader.numbers;
      gate = Gate.open(identity);
      const left = gate.countHeld()[0] ?? 0;
      expect(left).toBeGreaterThan(0);
      expect(left).toBeLessThanOrEqual(200 - after);
      send(200, 210); // joins the end, though the gate passes: something is held
      const next = lab.reader(tap);
      expect((await replayAll(gate)).ports[0]?.delivered).toBe(left + 10);
      const rest = await next.have(210 - before.length);
      expect([...before, ...rest]).toEqual(numbers(0, 210));
      expect(tapRingIsEmpty(tap.fd)).toBe(true);
      expect(gate.counters(0)).toMatchObject({ diverted: 210, returned: 210, passed: 0 });
    },
  );

  it('settles a delivery that was cut short between the tap and the counting', async () => {
    const { child, identity } = await startHolder();
    send(0, 3);
    await kill(child);
    gate = Gate.open(identity);
    const words = new BigUint64Array(gate.stateMemory);
    const [SEEN, ATTEMPT] = [8 + 2, 8 + 6];
    // As left by a kill right after the tap took frame 0: the program has seen one frame, `returned` is still 0.
    words[ATTEMPT] = 1n;
    words[SEEN] = 1n;
    gate.close();
    gate = Gate.open(identity);
    expect(gate.counters(0).returned).toBe(1);
    // As left by a kill right before frame 1 reached the tap: the program has not seen it.
    words[ATTEMPT] = (1n << 32n) | 2n;
    gate.close();
    gate = Gate.open(identity);
    expect(gate.counters(0).returned).toBe(1);
    await replayAll(gate);
    expect(await lab.reader(tap).have(2)).toEqual([1, 2]);
  });

  it('reports frames that only the dead process had as missing, and goes on', async () => {
    const { child, identity } = await startHolder();
    send(0, 2);
    await kill(child);
    gate = Gate.open(identity);
    gate.preload(0, [{ offsetNs: 0n, frame: numberedFrame(2) }]);
    gate.close();
    gate = Gate.open(identity);
    send(3, 5);
    expect(gate.counters(0).diverted).toBe(5);
    expect((await replayAll(gate)).ports[0]).toMatchObject({ delivered: 4, missing: 1 });
    expect(await lab.reader(tap).have(4)).toEqual([0, 1, 3, 4]);
    expect(gate.counters(0)).toMatchObject({ diverted: 5, returned: 5 });
  });
});

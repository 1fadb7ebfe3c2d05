import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { runCut } from '../../src/native/barrier.ts';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import { LeftoverJournal } from '../../src/native/leftovers.ts';
import { readTapFrames } from '../../src/native/tap.ts';
import { VmPorts } from '../../src/network/vm-ports.ts';
import { NetworkLab, numberedFrame, numberOf, numbers } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

/** Places of the journal's words (native/gate/leftover-journal.h). */
const [COUNT, READING, RETURNED, ATTEMPT] = [16, 24, 32, 40] as const;
const HEAD_BYTES = 64;
const RECORD_BYTES = 88;
const LENGTH_IN_RECORD = 16;

let folder: string;
let lab: NetworkLab;
let tap: LabTap;
let path: string;
let made = 0;
const open: { close(): void }[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'staghorn-leftovers-'));
  const outfile = join(folder, 'holder.mjs');
  const entryPoints = ['test/network/leftover-holder.ts'];
  await build({ entryPoints, outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external' });
  symlinkSync(join(process.cwd(), 'build/Release/staghorn.node'), join(folder, 'staghorn.node'));
  symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

beforeEach(() => {
  lab = NetworkLab.enter();
  tap = lab.tap();
  path = join(folder, `journal-${made++}`);
});

afterEach(() => {
  for (const { close } of open.splice(0).map((owner) => ({ close: () => owner.close() }))) close();
  lab.leave();
});

function keep<T extends { close(): void }>(owner: T): T {
  open.push(owner);
  return owner;
}

function holdingGate(): Gate {
  const gate = keep(Gate.create({ slots: 1, ringBytes: 1 << 20, hold: true }));
  gate.attachTap({ fd: tap.fd, slot: 0 });
  return gate;
}

const send = (from: number, to: number, length = 100) =>
  sendFrames(
    tap.ifindex,
    numbers(from, to).map((number) => numberedFrame(number, length)),
  );
const create = (gate: Gate) =>
  keep(LeftoverJournal.create({ path, bytes: 1 << 20, nonce: gate.identity.nonce }));
const reopen = (gate: Gate) =>
  keep(LeftoverJournal.open({ path, nonce: gate.identity.nonce, state: gate.stateMemory }));
const ring = (headerBytes = 0) => ({ fd: tap.fd, headerBytes, port: 0 });
const giveBack = (journal: LeftoverJournal, gate: Gate, giveUpAfterMs = 10_000) => {
  const ports = [{ port: 0, ifindex: tap.ifindex }];
  return journal.giveBack({ state: gate.stateMemory, ports, giveUpAfterMs });
};
const numbersOf = (frames: readonly { frame: Buffer }[]) => frames.map(({ frame }) => numberOf(frame));

/** Changes the journal's file as a kill at some instant would have left it. */
function rewrite(change: (file: Buffer) => void): void {
  const file = readFileSync(path);
  change(file);
  writeFileSync(path, file);
}

describe("frames out of a tap's ring", () => {
  it('go back byte for byte and in order while the gate holds, and are seen by it', async () => {
    send(0, 50, 1514);
    const gate = holdingGate();
    const journal = create(gate);
    expect(journal.readRings([ring()], 7n)).toBe(true);
    send(50, 51);
    expect(journal.frames()).toEqual(
      numbers(0, 50).map((number) => {
        return { port: 0, atNs: 7n, gsoSize: 0, frame: numberedFrame(number, 1514) };
      }),
    );
    expect(await giveBack(journal, gate)).toEqual({ delivered: 50, refused: 0, lastErrno: 0 });
    expect(readTapFrames(tap.fd).map(({ frame }) => frame)).toEqual(
      numbers(0, 50).map((number) => numberedFrame(number, 1514)),
    );
    expect(gate.counters(0)).toMatchObject({ diverted: 1, seen: 50 });
    expect(journal.counts).toEqual({ read: 50, returned: 50 });
    expect(journal.frames()).toEqual([]);
  });

  it('go back into the namespace that the journal was made in, wherever the process is by then', async () => {
    send(0, 3);
    const gate = holdingGate();
    const journal = create(gate);
    journal.readRings([ring()], 0n);
    const elsewhere = NetworkLab.enter();
    try {
      elsewhere.tap();
      expect(await giveBack(journal, gate)).toMatchObject({ delivered: 3, refused: 0 });
    } finally {
      elsewhere.leave();
    }
    expect(numbersOf(readTapFrames(tap.fd))).toEqual([0, 1, 2]);
  });

  it('wait for a ring that is full until somebody reads it', async () => {
    send(0, 500);
    const gate = holdingGate();
    const journal = create(gate);
    journal.readRings([ring()], 0n);
    gate.setMode('pass');
    send(1000, 1600);
    const returning = giveBack(journal, gate);
    const frames = await lab.reader(tap).have(1100);
    expect(await returning).toMatchObject({ delivered: 500, refused: 0 });
    expect(frames).toEqual([...numbers(1000, 1600), ...numbers(0, 500)]);
  });

  it('are refused where the tap is down, which is said', async () => {
    send(0, 3);
    const gate = holdingGate();
    const journal = create(gate);
    journal.readRings([ring()], 0n);
    lab.ip('link', 'set', tap.name, 'down');
    expect(await giveBack(journal, gate)).toMatchObject({ delivered: 0, refused: 3 });
  });

  it('are given back by nobody who has another gate', () => {
    create(holdingGate());
    const other = keep(Gate.create({ slots: 1, ringBytes: 1 << 18 }));
    expect(() => reopen(other)).toThrow(expect.objectContaining({ code: 'ESTALE' }));
  });
});

describe('ports whose agent was killed after the cut', () => {
  it('get what was in their rings, then what was held', async () => {
    const port = { vm: 'a', name: tap.name, ifindex: tap.ifindex, tapFds: [tap.fd] };
    const ports = VmPorts.create({ ports: [port], ringBytes: 1 << 20, hold: false });
    ports.prepareLeftovers(path);
    ports.attach();
    send(0, 30);
    const cut = await runCut({
      ...{ atNs: 0n, spinNs: 0, modeWords: [ports.modeWord], ringBoundNs: 0, writes: [] },
      ...ports.cutRings(),
    });
    expect(ports.takeLeftovers(cut)).toEqual([{ port, kept: 30, dropped: false }]);
    send(30, 60);
    const next = VmPorts.adopt({
      ports: [{ ...port, slot: 0 }],
      identity: ports.identity,
      leftoverFile: path,
    });
    expect(numbersOf(next.held())).toEqual(numbers(0, 60));
    expect(await next.replay(0n, new Map())).toMatchObject({ delivered: 60 });
    send(60, 70);
    expect(numbersOf(readTapFrames(tap.fd))).toEqual(numbers(0, 70));
    next.close();
    ports.close();
  });
});

describe('a journal of leftovers whose process was killed', () => {
  it('has a frame that was read and not counted, to its last byte', () => {
    send(0, 3, 777);
    const gate = holdingGate();
    const journal = create(gate);
    journal.readRings([ring()], 0n);
    journal.close();
    const last = HEAD_BYTES + 2 * (RECORD_BYTES + 784); // 777, to a multiple of 8
    rewrite((file) => {
      file.writeBigUInt64LE(2n, COUNT);
      file.writeBigUInt64LE(1n, READING);
      file.writeUInt32LE(0xabababab, last + LENGTH_IN_RECORD);
    });
    expect(reopen(gate).frames()).toMatchObject(
      numbers(0, 3).map((number) => ({ port: 0, frame: numberedFrame(number, 777) })),
    );
    // And once more, as if that process had been killed too.
    expect(numbersOf(reopen(gate).frames())).toEqual([0, 1, 2]);
  });

  it('makes nothing up where the read had found nothing', () => {
    send(0, 2);
    const gate = holdingGate();
    create(gate).readRings([ring()], 0n);
    rewrite((file) => file.writeBigUInt64LE(1n, READING));
    expect(numbersOf(reopen(gate).frames())).toEqual([0, 1]);
  });

  it('settles a frame that was being given back by what the gate has seen', async () => {
    send(0, 3);
    const gate = holdingGate();
    create(gate).readRings([ring()], 0n);
    const words = new BigUint64Array(gate.stateMemory);
    const SEEN = 8 + 2;
    words[SEEN] = 41n;
    rewrite((file) => {
      file.writeBigUInt64LE(1n, RETURNED);
      file.writeBigUInt64LE((2n << 32n) | 41n, ATTEMPT); // frame 1, before it reached the tap
    });
    expect(numbersOf(reopen(gate).frames())).toEqual([1, 2]);
    rewrite((file) => file.writeBigUInt64LE((2n << 32n) | 41n, ATTEMPT));
    words[SEEN] = 42n; // the tap has it
    const journal = reopen(gate);
    expect(numbersOf(journal.frames())).toEqual([2]);
    expect(await giveBack(journal, gate)).toMatchObject({ delivered: 1 });
    expect(numbersOf(readTapFrames(tap.fd))).toEqual([2]);
  });

  it.each([1, 50, 250, 500, 800])(
    'gives back each frame once, though it died after %i of them',
    async (after) => {
      send(0, 1000);
      const child = spawn(process.execPath, [join(folder, 'holder.mjs'), String(tap.ifindex), path], {
        stdio: ['pipe', 'pipe', 'inherit', tap.fd],
      });
      let file: number | undefined;
      try {
        const gate = keep(Gate.open(await identityFrom(child)));
        file = openSync(path, 'r');
        child.stdin?.write('now\n');
        const returned = Buffer.alloc(8);
        do readSync(file, returned, 0, 8, RETURNED);
        while (returned.readBigUInt64LE() < after);
        await kill(child);
        const journal = reopen(gate);
        const { delivered } = await giveBack(journal, gate);
        expect(delivered).toBeLessThanOrEqual(1000 - after);
        expect(numbersOf(readTapFrames(tap.fd))).toEqual(numbers(0, 1000));
      } finally {
        if (file !== undefined) closeSync(file);
        await kill(child);
      }
    },
  );
});

async function identityFrom(child: ChildProcess) {
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  const { stateMapId, ringMapId, nonce } = JSON.parse(String(line)) as Record<string, string>;
  return { stateMapId: Number(stateMapId), ringMapId: Number(ringMapId), nonce: BigInt(nonce ?? 0) };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

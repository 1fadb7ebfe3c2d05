import { execFileSync } from 'node:child_process';
import { constants } from 'node:fs';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { crc32c } from '../../src/native/checksum.ts';
import { forkMemory, release } from '../../src/native/fork.ts';
import { chunkBytes, createRateLimit, saveRam, verifyRam, writeMemory } from '../../src/native/ram.ts';
import { readMemory, TestQemu } from './qemu.ts';

const blockBytes = 512;
let qemu: TestQemu;
let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'staghorn-ram-'));
  file = join(directory, 'ram');
  qemu = await TestQemu.startCounting(['-m', '64']);
});

afterEach(async () => {
  await qemu.stop();
  await rm(directory, { recursive: true, force: true });
});

async function savedRam() {
  await qemu.qmp.execute('stop');
  const ram = await qemu.block('pc.ram');
  const saved = await saveRam({ pid: qemu.pid, regions: [{ ...ram, fileOffset: 0 }], file, threads: 2 });
  return { ram, saved };
}

async function flipBit(offset: number): Promise<void> {
  const handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, offset);
  byte[0] = (byte[0] ?? 0) ^ 0x10;
  await handle.write(byte, 0, 1, offset);
  await handle.close();
}

/** What a process alone has of the mapping that begins at an address. */
async function ownBytes(pid: number, address: bigint): Promise<number> {
  const mappings = (await readFile(`/proc/${pid}/smaps`, 'utf8')).split(/^(?=[0-9a-f]+-)/m);
  const mapping = mappings.find((one) => one.startsWith(`${address.toString(16)}-`));
  if (mapping === undefined) throw new Error(`nothing is mapped at ${address.toString(16)}`);
  return Number(/^Private_Dirty: +(\d+) kB$/m.exec(mapping)![1]) * 1024;
}

describe('saving the RAM of a QEMU', () => {
  test('of a stopped one writes what a direct read gives, with holes for zero pages', async () => {
    const ram = await qemu.block('pc.ram');
    writeMemory({
      pid: qemu.pid,
      address: ram.address + (40n << 20n),
      bytes: Buffer.alloc(3 << 20, 'dirty'),
    });
    writeMemory({ pid: qemu.pid, address: ram.address + (50n << 20n), bytes: Buffer.alloc(1 << 20, 0) });
    const { saved } = await savedRam();
    const direct = await readMemory(qemu.pid, ram.address, ram.length);
    expect((await readFile(file)).equals(direct)).toBe(true);
    expect(saved.fileBytes).toBe(ram.length);
    expect(saved.dataBytes).toBeGreaterThanOrEqual(3 << 20);
    expect(saved.dataBytes).toBeLessThan(16 << 20);
    expect((await stat(file)).blocks * blockBytes).toBeLessThan(20 << 20);
    const expected = Uint32Array.from({ length: ram.length / chunkBytes }, (_, i) =>
      crc32c(direct.subarray(i * chunkBytes, (i + 1) * chunkBytes)),
    );
    expect(saved.chunkChecksums).toEqual(expected);
  });

  test('of a forked child writes the RAM of the fork', async () => {
    await qemu.qmp.execute('stop');
    const ram = await qemu.block('pc.ram');
    const atFork = await readMemory(qemu.pid, ram.address, ram.length);
    const { childPid } = await forkMemory({ pid: qemu.pid, regions: [ram], timeoutMs: 5000 });
    await qemu.qmp.execute('cont');
    await qemu.countsOn();
    const progress: number[] = [];
    const saved = await saveRam({
      pid: childPid,
      regions: [{ ...ram, fileOffset: 0 }],
      file,
      onProgress: ({ doneBytes }) => progress.push(doneBytes),
    });
    await release(childPid);
    expect((await readFile(file)).equals(atFork)).toBe(true);
    expect(progress.at(-1)).toBe(ram.length);
    expect(await verifyRam({ file, length: ram.length, checksums: saved.chunkChecksums })).toEqual({
      ok: true,
      firstBadChunk: null,
    });
  });

  test('of a forked child leaves the pages shared with the process that it was forked from', async () => {
    await qemu.qmp.execute('stop');
    const ram = await qemu.block('pc.ram');
    writeMemory({ pid: qemu.pid, address: ram.address + (16n << 20n), bytes: Buffer.alloc(16 << 20, 'x') });
    const { childPid } = await forkMemory({ pid: qemu.pid, regions: [ram], timeoutMs: 5000 });
    const before = await ownBytes(childPid, ram.address);
    await saveRam({ pid: childPid, forked: true, regions: [{ ...ram, fileOffset: 0 }], file });
    expect(await ownBytes(childPid, ram.address)).toBe(before);
    await release(childPid);
  });

  test('puts several regions at their places, and into a descriptor whose file had other content', async () => {
    await qemu.qmp.execute('stop');
    const vram = await qemu.block('0000:00:02.0/vga.vram');
    const pages = { address: vram.address, length: 3 * 4096 };
    writeMemory({ pid: qemu.pid, address: vram.address, bytes: Buffer.alloc(pages.length, 'screen') });
    await writeFile(file, Buffer.alloc(5 * chunkBytes, 'old'));
    const handle = await open(file, constants.O_RDWR);
    const saved = await saveRam({
      pid: qemu.pid,
      regions: [
        { ...pages, fileOffset: 2 * chunkBytes },
        { ...pages, fileOffset: 0 },
      ],
      file: handle.fd,
    });
    await handle.close();
    const content = await readFile(file);
    expect(content.length).toBe(2 * chunkBytes + pages.length);
    const expected = Buffer.alloc(content.length);
    Buffer.alloc(pages.length, 'screen').copy(expected, 0);
    Buffer.alloc(pages.length, 'screen').copy(expected, 2 * chunkBytes);
    expect(content.equals(expected)).toBe(true);
    const verified = await verifyRam({ file, length: content.length, checksums: saved.chunkChecksums });
    expect(verified.ok).toBe(true);
  });

  test('of a QEMU restored from a private file mapping reads pages that only the file has', async () => {
    const { ram } = await savedRam();
    const original = await readFile(file);
    const restored = await TestQemu.start([
      ...['-S', '-m', '64', '-machine', 'memory-backend=ram'],
      ...['-object', `memory-backend-file,id=ram,size=64M,share=off,mem-path=${file}`],
    ]);
    try {
      const block = await restored.block('ram');
      expect(block).toMatchObject({ private: true, backingFile: file, length: ram.length });
      const { childPid } = await forkMemory({ pid: restored.pid, regions: [block], timeoutMs: 5000 });
      const again = join(directory, 'again');
      await saveRam({ pid: childPid, regions: [{ ...block, fileOffset: 0 }], file: again });
      await release(childPid);
      const direct = await readMemory(restored.pid, block.address, block.length);
      expect((await readFile(again)).equals(direct)).toBe(true);
      expect(direct.subarray(chunkBytes).equals(original.subarray(chunkBytes))).toBe(true);
    } finally {
      await restored.stop();
    }
  });

  test('can be cancelled, and rejects with the reason', async () => {
    await qemu.qmp.execute('stop');
    const ram = await qemu.block('pc.ram');
    writeMemory({ pid: qemu.pid, address: ram.address + (16n << 20n), bytes: Buffer.alloc(32 << 20, 'x') });
    const controller = new AbortController();
    const reason = new Error('enough');
    const saving = saveRam({
      pid: qemu.pid,
      regions: [{ ...ram, fileOffset: 0 }],
      file,
      limit: createRateLimit(4 << 20), // 8 s
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(saving).rejects.toBe(reason);
  });

  test('keeps to a limit of bytes a second, which saves share', async () => {
    await qemu.qmp.execute('stop');
    const ram = await qemu.block('pc.ram');
    writeMemory({ pid: qemu.pid, address: ram.address + (16n << 20n), bytes: Buffer.alloc(16 << 20, 'x') });
    const limit = createRateLimit(128 << 20);
    const common = { pid: qemu.pid, regions: [{ ...ram, fileOffset: 0 }], limit };
    const startedMs = performance.now();
    await Promise.all([file, `${file}2`].map((one) => saveRam({ ...common, file: one })));
    expect(performance.now() - startedMs).toBeGreaterThan(240);
  });

  test('fails with ENOSPC on a full disk', async () => {
    await qemu.qmp.execute('stop');
    const ram = await qemu.block('pc.ram');
    writeMemory({ pid: qemu.pid, address: ram.address + (16n << 20n), bytes: Buffer.alloc(16 << 20, 'x') });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'staghorn-test', directory]);
    try {
      const saving = saveRam({ pid: qemu.pid, regions: [{ ...ram, fileOffset: 0 }], file, threads: 2 });
      await expect(saving).rejects.toMatchObject({ code: 'ENOSPC', syscall: 'write' });
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  test('fails with ESRCH for a process that is gone', async () => {
    const ram = await qemu.block('pc.ram');
    const { childPid } = await forkMemory({ pid: qemu.pid, regions: [ram], timeoutMs: 5000 });
    await release(childPid);
    const saving = saveRam({ pid: childPid, regions: [{ ...ram, fileOffset: 0 }], file });
    await expect(saving).rejects.toMatchObject({ code: 'ESRCH' });
  });
});

describe('verifying a file of RAM', () => {
  test('finds one flipped bit in data, and one in a hole', async () => {
    const { ram, saved } = await savedRam();
    const check = () => verifyRam({ file, length: ram.length, checksums: saved.chunkChecksums, threads: 2 });
    expect(await check()).toEqual({ ok: true, firstBadChunk: null });
    await flipBit(60 * chunkBytes + 12345);
    expect(await check()).toEqual({ ok: false, firstBadChunk: 60 });
    await flipBit(0x8000);
    expect(await check()).toEqual({ ok: false, firstBadChunk: 0 });
    await flipBit(0x8000);
    await flipBit(60 * chunkBytes + 12345);
    expect(await check()).toEqual({ ok: true, firstBadChunk: null });
  });

  test('finds a file that was cut off', async () => {
    const { ram, saved } = await savedRam();
    const handle = await open(file, 'r+');
    await handle.truncate(ram.length - 1);
    await handle.close();
    expect(await verifyRam({ file, length: ram.length, checksums: saved.chunkChecksums })).toEqual({
      ok: false,
      firstBadChunk: ram.length / chunkBytes - 1,
    });
  });
});

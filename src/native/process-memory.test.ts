import { describe, expect, test } from 'vitest';
import { refusalOf } from './fork.ts';
import {
  locateCodeBuffer,
  locateRamBlocks,
  parseFlatView,
  parseGpa2hva,
  parseRamBlocks,
  parseSmaps,
} from './process-memory.ts';

// QEMU 7.2, -M pc -m 64; lines that do not matter left out.
const smapsText = `
7fe183e00000-7fe187e00000 rw-p 00000000 00:00 0 
Size:              65536 kB
Rss:               10240 kB
VmFlags: rd wr mr mw me dc ac hg mg 
7fe1d1200000-7fe1d1210000 rw-p 00000000 00:00 0 
Rss:                   4 kB
VmFlags: rd wr mr mw me dc ac hg mg 
7fe1d1800000-7fe1d1810000 rw-p 00000000 00:00 0 
VmFlags: rd wr mr mw me dc ac hg mg 
7fe1d1a00000-7fe1d2a00000 rw-p 00000000 00:00 0 
VmFlags: rd wr mr mw me dc ac hg mg 
7fe1d3a00000-7fe1d4a00000 rw-p 00000000 00:00 0 
VmFlags: rd wr mr mw me ac sd 
7fe1d5000000-7fe1d5001000 r-xp 00000000 fe:00 1234                       /usr/lib/x86 64/libc.so.6
VmFlags: rd ex mr mw me
`;
const ramBlockText = [
  '              Block Name    PSize              Offset               Used              Total',
  '                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000',
  '   0000:00:02.0/vga.vram    4 KiB  0x0000000004080000 0x0000000001000000 0x0000000001000000',
  '    0000:00:02.0/vga.rom    4 KiB  0x0000000005080000 0x0000000000010000 0x0000000000010000',
  '   /rom@etc/table-loader    4 KiB  0x0000000005300000 0x0000000000001000 0x0000000000010000',
  '                 pc.bios    2 MiB  0x0000000004000000 0x0000000000040000 0x0000000000040000 0x00007f00 ro',
].join('\r\n');
const ramAddress = 0x7fe183e00000n;

describe('parseSmaps', () => {
  test('gives each mapping with its flags', () => {
    const smaps = parseSmaps(smapsText);
    expect(smaps).toHaveLength(6);
    expect(smaps[0]).toMatchObject({ address: ramAddress, length: 64 << 20, private: true, path: null });
    expect(smaps[0]?.residentBytes).toBe(10 << 20);
    expect(smaps[0]?.flags.has('dc')).toBe(true);
    expect(smaps[4]?.flags.has('dc')).toBe(false);
    expect(smaps[5]).toMatchObject({ permissions: 'r-xp', path: '/usr/lib/x86 64/libc.so.6' });
  });

  test('of something else gives nothing', () => {
    expect(parseSmaps('')).toEqual([]);
    expect(parseSmaps('Rss: 4 kB\nVmFlags: dc\nnonsense')).toEqual([]);
  });
});

describe('locateCodeBuffer', () => {
  const code = (flags: string) =>
    parseSmaps(
      [
        '7f0000000000-7f0000100000 rw-p 00000000 00:00 0',
        'VmFlags: rd wr mr mw me ac',
        '7f0000100000-7f0000200000 rwxp 00000000 00:00 0',
        `VmFlags: rd wr ex mr mw me ac hg${flags}`,
        '7f0000200000-7f0000201000 ---p 00000000 00:00 0',
        'VmFlags: mr mw me ac hg',
        '7f0000201000-7f0000300000 rwxp 00000000 00:00 0',
        `VmFlags: rd wr ex mr mw me ac hg${flags}`,
        '7f0000300000-7f0000301000 ---p 00000000 00:00 0',
        'VmFlags: mr mw me ac hg',
      ].join('\n'),
    );

  test('is all of it, with the guard pages within', () => {
    expect(locateCodeBuffer(code(''))).toEqual({ address: 0x7f0000100000n, length: 0x200000 });
  });

  test('is none where no memory is written and executed, or no fork copies it', () => {
    expect(locateCodeBuffer(parseSmaps(smapsText))).toBeNull();
    expect(locateCodeBuffer(code(' dc'))).toBeNull();
  });
});

describe('parseRamBlocks', () => {
  test('reads the table of QEMU 7.2 and rows with more columns', () => {
    const blocks = parseRamBlocks(ramBlockText);
    expect(blocks.map((block) => block.name)).toEqual([
      'pc.ram',
      '0000:00:02.0/vga.vram',
      '0000:00:02.0/vga.rom',
      '/rom@etc/table-loader',
      'pc.bios',
    ]);
    expect(blocks[3]).toMatchObject({ usedBytes: 0x1000, totalBytes: 0x10000, offset: 0x5300000n });
    expect(blocks[4]?.pageBytes).toBe(2 << 20);
  });
});

describe('parseGpa2hva', () => {
  test('reads name and address, and refuses errors', () => {
    const answer = 'Host virtual address for 0x0 (pc.ram) is 0x7fe183e00000\r\n';
    expect(parseGpa2hva(answer)).toEqual({ name: 'pc.ram', address: ramAddress });
    expect(parseGpa2hva('No memory is mapped at address 0x0\r\n')).toBeNull();
  });
});

describe('locateRamBlocks', () => {
  const smaps = parseSmaps(smapsText);
  const ramBlocks = parseRamBlocks(ramBlockText);

  test('finds RAM by address, others by a size that only one has, and says what it cannot tell', () => {
    const found = locateRamBlocks({ smaps, ramBlocks, known: new Map([['pc.ram', ramAddress]]) });
    expect(found.blocks).toEqual([
      {
        name: 'pc.ram',
        address: ramAddress,
        length: 64 << 20,
        private: true,
        backingFile: null,
        backingOffset: 0n,
        hugePages: false,
      },
      {
        name: '0000:00:02.0/vga.vram',
        address: 0x7fe1d1a00000n,
        length: 16 << 20,
        private: true,
        backingFile: null,
        backingOffset: 0n,
        hugePages: false,
      },
    ]);
    expect(found.ambiguous).toEqual(['0000:00:02.0/vga.rom', '/rom@etc/table-loader']);
    expect(found.missing).toEqual(['pc.bios']);
  });

  test('tells RAM of hugetlbfs', () => {
    const huge = parseSmaps(smapsText.replace('hg', 'ht'));
    const { blocks } = locateRamBlocks({ smaps: huge, ramBlocks, known: new Map([['pc.ram', ramAddress]]) });
    expect(blocks.filter(({ hugePages }) => hugePages).map(({ name }) => name)).toEqual(['pc.ram']);
  });

  test('lists RAM as missing where the address is in no mapping of its size', () => {
    const found = locateRamBlocks({ smaps, ramBlocks, known: new Map([['pc.ram', 4096n]]) });
    expect(found.missing).toContain('pc.ram');
  });
});

describe('what keeps a process from being forked', () => {
  const root = 'Uid:\t0\nTracerPid:\t0\nSeccomp:\t0\nCapEff:\t000001ffffffffff\n';
  const user = 'Uid:\t1000\nTracerPid:\t0\nSeccomp:\t0\nCapEff:\t0000000000000000\n';

  test('is told from both statuses', () => {
    expect(refusalOf(user, root)).toBeNull();
    expect(refusalOf(user, user)).toBeNull();
    expect(refusalOf(root, user)).toMatch(/CAP_SYS_PTRACE/);
    expect(refusalOf(user.replace('Seccomp:\t0', 'Seccomp:\t2'), user)).toMatch(/CAP_SYS_ADMIN/);
    expect(refusalOf(root.replace('TracerPid:\t0', 'TracerPid:\t77'), root)).toMatch(/process 77/);
  });
});

describe('parseFlatView', () => {
  test('reads where blocks lie in guest memory, and nothing of other address spaces', () => {
    const text = [
      'FlatView #0',
      ' AS "memory", root: system',
      ' Root memory region: system',
      '  0000000000000000-000000000009ffff (prio 0, ram): r0',
      '  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem',
      '  00000000000c0000-0000000001ffffff (prio 0, ram): r0 @00000000000c0000',
      '  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios',
      '  0000000100000000-0000000107ffffff (prio 0, ram): hp1',
      'FlatView #1',
      ' AS "cpu-smm-0", root: memory',
      '  0000000000000000-000000000009ffff (prio 0, ram): r1',
    ].join('\r\n');
    expect(parseFlatView(text)).toEqual([
      { name: 'r0', guestAddress: 0n, blockOffset: 0n },
      { name: 'r0', guestAddress: 0xc0000n, blockOffset: 0xc0000n },
      { name: 'hp1', guestAddress: 0x100000000n, blockOffset: 0n },
    ]);
  });
});

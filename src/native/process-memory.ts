/**
 * Guest RAM in a QEMU process, from what the kernel and QEMU's monitor print. Pure parsers; nothing here reads.
 */

/** One mapping of /proc/PID/smaps (proc(5), Linux Documentation/filesystems/proc.rst). */
export interface MemoryMapping {
  readonly address: bigint;
  readonly length: number;
  readonly permissions: string;
  /** Of its begin in the file that it maps. */
  readonly fileOffset: bigint;
  /** Not MAP_SHARED. */
  readonly private: boolean;
  /** The file or pseudo file ("[heap]"); null for anonymous memory. */
  readonly path: string | null;
  readonly residentBytes: number;
  /** Two-letter flags: "dc" is MADV_DONTFORK, "ht" huge pages of hugetlbfs. */
  readonly flags: ReadonlySet<string>;
}

/** One RAM block of QEMU's `info ramblock`. */
export interface RamBlock {
  readonly name: string;
  readonly pageBytes: number;
  /** In QEMU's ram_addr_t space, which says nothing about addresses. */
  readonly offset: bigint;
  readonly usedBytes: number;
  /** What it may grow to, and what its mapping has. */
  readonly totalBytes: number;
}

export interface LocatedBlock {
  readonly name: string;
  readonly address: bigint;
  readonly length: number;
  readonly private: boolean;
  /** Of hugetlbfs. */
  readonly hugePages: boolean;
  readonly backingFile: string | null;
  /** Where the block begins in it. */
  readonly backingOffset: bigint;
}

export interface LocatedBlocks {
  readonly blocks: readonly LocatedBlock[];
  /** Names of blocks of which several mappings could be it, or none. */
  readonly ambiguous: readonly string[];
  readonly missing: readonly string[];
}

const mappingHeader = /^([0-9a-f]+)-([0-9a-f]+) ([rwxsp-]{4}) ([0-9a-f]+) [0-9a-f]+:[0-9a-f]+ \d+ *(.*)$/;
const kibibyteBytes = 1024;
/** Of x86-64; QEMU tells the page size of the file that a block is in. */
const basePageBytes = 4096;

/** Mappings in the order of their addresses; of /proc/PID/maps too, without flags. Lines that it does not know are passed over. */
export function parseSmaps(text: string): MemoryMapping[] {
  const mappings: MemoryMapping[] = [];
  for (const line of text.split('\n')) {
    // Of some 25 lines a mapping all but the first begin with a capital letter.
    const header = line >= 'A' && line < '[' ? null : mappingHeader.exec(line);
    const last = mappings.at(-1);
    if (header !== null) mappings.push(mappingOf(header));
    else if (last === undefined) continue;
    else if (line.startsWith('Rss:')) replaceLast(mappings, { ...last, residentBytes: kibibytesOf(line) });
    else if (line.startsWith('VmFlags:')) replaceLast(mappings, { ...last, flags: flagsOf(line) });
  }
  return mappings;
}

function mappingOf(header: RegExpExecArray): MemoryMapping {
  const [, start = '', end = '', permissions = '', offset = '0', path = ''] = header;
  const address = BigInt(`0x${start}`);
  return {
    address,
    length: Number(BigInt(`0x${end}`) - address),
    permissions,
    fileOffset: BigInt(`0x${offset}`),
    private: permissions.endsWith('p'),
    path: path === '' ? null : path,
    residentBytes: 0,
    flags: new Set(),
  };
}

function replaceLast(mappings: MemoryMapping[], mapping: MemoryMapping): void {
  mappings[mappings.length - 1] = mapping;
}

function kibibytesOf(line: string): number {
  return Number(/(\d+) kB/.exec(line)?.[1] ?? 0) * kibibyteBytes;
}

function flagsOf(line: string): ReadonlySet<string> {
  return new Set(line.slice('VmFlags:'.length).trim().split(/\s+/));
}

const pageUnits: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
const blockLine =
  /^\s*(\S.*?)\s+(\d+(?:\.\d+)?) ([KMG]?i?B)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?:\s|$)/;

/** The table that `info ramblock` prints (QEMU system/physmem.c, ram_block_format; newer versions append columns). */
export function parseRamBlocks(text: string): RamBlock[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const fields = blockLine.exec(line);
    if (fields === null) return [];
    const [, name = '', page = '', unit = '', offset = '', used = '', total = ''] = fields;
    return [
      {
        name,
        pageBytes: Number(page) * (pageUnits[unit] ?? Number.NaN),
        offset: BigInt(`0x${offset}`),
        usedBytes: Number.parseInt(used, 16),
        totalBytes: Number.parseInt(total, 16),
      },
    ];
  });
}

/** `gpa2hva`'s answer: a block's name and the address in QEMU of the guest's address. Null if it was an error. */
export function parseGpa2hva(text: string): { name: string; address: bigint } | null {
  const found = /Host virtual address for 0x[0-9a-f]+ \((.+)\) is 0x([0-9a-f]+)/.exec(text);
  return found === null ? null : { name: found[1] ?? '', address: BigInt(`0x${found[2]}`) };
}

/** A stretch of guest-physical memory and the RAM block behind it. */
export interface FlatRange {
  readonly name: string;
  readonly guestAddress: bigint;
  readonly blockOffset: bigint;
}

const flatRangeLine =
  /^ {2}([0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, ram\): (.+?)(?: @([0-9a-f]{16}))?(?: KVM)?$/;

/** RAM in the CPUs' view of memory, as `info mtree -f` prints it (QEMU softmmu/memory.c, mtree_print_flatview). */
export function parseFlatView(text: string): FlatRange[] {
  const views = text.replaceAll('\r', '').split(/^FlatView #/m);
  const ofMemory = views.find((view) => view.includes('AS "memory"')) ?? '';
  return ofMemory.split('\n').flatMap((line) => {
    const [, address, name = '', offset = '0'] = flatRangeLine.exec(line) ?? [];
    if (address === undefined) return [];
    return [{ name, guestAddress: BigInt(`0x${address}`), blockOffset: BigInt(`0x${offset}`) }];
  });
}

export interface LocateOptions {
  readonly smaps: readonly MemoryMapping[];
  readonly ramBlocks: readonly RamBlock[];
  /** Blocks whose address QEMU told (`gpa2hva`), by name; among them the one of guest address 0. */
  readonly known: ReadonlyMap<string, bigint>;
}

/**
 * Finds each RAM block's memory. Of blocks whose address is not known, QEMU 7.2 tells only sizes, so each is the one
 * mapping of that size which QEMU has marked MADV_DONTFORK, as it does all guest RAM (QEMU softmmu/physmem.c,
 * ram_block_add).
 */
export function locateRamBlocks({ smaps, ramBlocks, known }: LocateOptions): LocatedBlocks {
  const blocks: LocatedBlock[] = [];
  const ambiguous: string[] = [];
  const missing = [...known.keys()].filter((name) => !ramBlocks.some((block) => block.name === name));
  const taken = new Set<MemoryMapping>();
  for (const block of ramBlocks) {
    const address = known.get(block.name);
    if (address === undefined) continue;
    const parts = mappingsOf(smaps, address, block.totalBytes);
    if (parts === null) missing.push(block.name);
    else blocks.push(located(block, parts, address));
    parts?.forEach((part) => taken.add(part));
  }
  const others = ramBlocks.filter(({ name }) => !known.has(name));
  for (const block of others) {
    const twins = others.filter((other) => other.totalBytes === block.totalBytes);
    const candidates = smaps.filter(
      (mapping) =>
        mapping.flags.has('dc') &&
        !isExecutable(mapping) &&
        mapping.length === block.totalBytes &&
        !taken.has(mapping),
    );
    const [mapping] = candidates;
    if (mapping === undefined) missing.push(block.name);
    else if (candidates.length > 1 || twins.length > 1) ambiguous.push(block.name);
    else blocks.push(located(block, [mapping], mapping.address));
  }
  return { blocks, ambiguous, missing };
}

const isExecutable = ({ permissions }: MemoryMapping) => permissions.includes('x');

/**
 * TCG's buffer of translated code, as far as a fork would copy it: anonymous memory that is written and executed, with
 * guard pages between its parts (QEMU tcg/region.c). Null if there is none, or it is marked MADV_DONTFORK already.
 */
export function locateCodeBuffer(
  smaps: readonly MemoryMapping[],
): { readonly address: bigint; readonly length: number } | null {
  const isCode = ({ permissions, path }: MemoryMapping) => permissions === 'rwxp' && path === null;
  const first = smaps.findIndex((mapping) => isCode(mapping) && !mapping.flags.has('dc'));
  if (first < 0) return null;
  const { address } = smaps[first]!;
  let end = address;
  let next = address;
  for (const mapping of smaps.slice(first)) {
    const isGuard = mapping.permissions === '---p' && mapping.path === null;
    if (mapping.address !== next || !(isCode(mapping) || isGuard)) break;
    next += BigInt(mapping.length);
    if (isCode(mapping)) end = next;
  }
  return { address, length: Number(end - address) };
}

/** A block may be of several mappings (after mprotect or madvise of a part); null if there is a gap. */
function mappingsOf(
  smaps: readonly MemoryMapping[],
  address: bigint,
  length: number,
): MemoryMapping[] | null {
  const end = address + BigInt(length);
  const parts = smaps.filter((one) => one.address < end && one.address + BigInt(one.length) > address);
  let covered = address;
  for (const part of parts) {
    if (part.address > covered) return null;
    covered = part.address + BigInt(part.length);
  }
  return covered >= end ? parts : null;
}

function located(block: RamBlock, mappings: readonly MemoryMapping[], address: bigint): LocatedBlock {
  return {
    name: block.name,
    address,
    length: block.totalBytes,
    private: mappings.every((mapping) => mapping.private),
    hugePages: block.pageBytes > basePageBytes || mappings.some((mapping) => mapping.flags.has('ht')),
    backingFile: mappings[0]?.path ?? null,
    backingOffset: mappings[0] === undefined ? 0n : mappings[0].fileOffset + address - mappings[0].address,
  };
}

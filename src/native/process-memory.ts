/**
 * Guest RAM in a QEMU process, from what the kernel and QEMU's monitor print. Pure parsers; nothing here reads.
 */

/** One mapping of /proc/PID/smaps (proc(5), Linux Documentation/filesystems/proc.rst). */
export interface MemoryMapping {
  readonly address: bigint;
  readonly length: number;
  readonly permissions: string;
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
  readonly backingFile: string | null;
}

export interface LocatedBlocks {
  readonly blocks: readonly LocatedBlock[];
  /** Names of blocks of which several mappings could be it, or none. */
  readonly ambiguous: readonly string[];
  readonly missing: readonly string[];
}

const mappingHeader = /^([0-9a-f]+)-([0-9a-f]+) ([rwxsp-]{4}) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+ *(.*)$/;
const kibibyteBytes = 1024;

/** Mappings in the order of their addresses. Lines that it does not know are passed over. */
export function parseSmaps(text: string): MemoryMapping[] {
  const mappings: MemoryMapping[] = [];
  for (const line of text.split('\n')) {
    const header = mappingHeader.exec(line);
    const last = mappings.at(-1);
    if (header !== null) mappings.push(mappingOf(header));
    else if (last === undefined) continue;
    else if (line.startsWith('Rss:')) replaceLast(mappings, { ...last, residentBytes: kibibytesOf(line) });
    else if (line.startsWith('VmFlags:')) replaceLast(mappings, { ...last, flags: flagsOf(line) });
  }
  return mappings;
}

function mappingOf(header: RegExpExecArray): MemoryMapping {
  const [, start = '', end = '', permissions = '', path = ''] = header;
  const address = BigInt(`0x${start}`);
  return {
    address,
    length: Number(BigInt(`0x${end}`) - address),
    permissions,
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

export interface LocateOptions {
  readonly smaps: readonly MemoryMapping[];
  readonly ramBlocks: readonly RamBlock[];
  /** What `gpa2hva 0x0` said: names the block of guest address 0, and where it lies. */
  readonly hvaOfFirst: { readonly name: string; readonly address: bigint };
}

/**
 * Finds each RAM block's memory. The block at guest address 0 is known by its address; of the others, QEMU 7.2 tells
 * only sizes, so each is the one mapping of that size which QEMU has marked MADV_DONTFORK, as it does all guest RAM
 * (QEMU softmmu/physmem.c, ram_block_add).
 */
export function locateRamBlocks(options: LocateOptions): LocatedBlocks {
  const { smaps, ramBlocks, hvaOfFirst } = options;
  const blocks: LocatedBlock[] = [];
  const ambiguous: string[] = [];
  const missing: string[] = [];
  const first = ramBlocks.find((block) => block.name === hvaOfFirst.name);
  const firstMapping = first && mappingAt(smaps, hvaOfFirst.address, first.totalBytes);
  if (first && firstMapping) blocks.push(located(first, firstMapping, hvaOfFirst.address));
  else missing.push(hvaOfFirst.name);

  const others = ramBlocks.filter((block) => block.name !== hvaOfFirst.name);
  for (const block of others) {
    const twins = others.filter((other) => other.totalBytes === block.totalBytes);
    const candidates = smaps.filter(
      (mapping) => mapping.flags.has('dc') && mapping.length === block.totalBytes && mapping !== firstMapping,
    );
    const [mapping] = candidates;
    if (mapping === undefined) missing.push(block.name);
    else if (candidates.length > 1 || twins.length > 1) ambiguous.push(block.name);
    else blocks.push(located(block, mapping, mapping.address));
  }
  return { blocks, ambiguous, missing };
}

function mappingAt(
  smaps: readonly MemoryMapping[],
  address: bigint,
  length: number,
): MemoryMapping | undefined {
  return smaps.find(
    (mapping) =>
      mapping.address <= address && mapping.address + BigInt(mapping.length) >= address + BigInt(length),
  );
}

function located(block: RamBlock, mapping: MemoryMapping, address: bigint): LocatedBlock {
  return {
    name: block.name,
    address,
    length: block.totalBytes,
    private: mapping.private,
    backingFile: mapping.path,
  };
}

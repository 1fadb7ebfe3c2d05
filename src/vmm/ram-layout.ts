import { readFile } from 'node:fs/promises';

import { StaghornError } from '../errors/index.ts';
import type { MemoryRegion } from '../native/fork.ts';
import {
  locateCodeBuffer,
  locateRamBlocks,
  parseFlatView,
  parseGpa2hva,
  parseRamBlocks,
  parseSmaps,
  type LocatedBlock,
} from '../native/process-memory.ts';
import type { QmpClient } from '../qmp/index.ts';
import { findOption, formatParameters, type CommandOption } from './command-line.ts';
import { hmp } from './connect-qmp.ts';

/** Guest RAM in a memory object beside main memory: a NUMA node's, or a DIMM's. */
export interface RamBackend {
  /** The object's id. */
  readonly id: string;
  /** The `-device` that a restore has to add, if the DIMM was plugged in while the VM ran; else null. */
  readonly device: string | null;
  readonly block: LocatedBlock;
}

/** Where the memory of a VM lies in its QEMU's address space. */
export interface RamLayout {
  /** Main memory: the block at guest-physical address 0. */
  readonly main: LocatedBlock;
  readonly backends: readonly RamBackend[];
  /** Blocks that the guest writes and the device state does not hold, such as video memory. */
  readonly others: readonly LocatedBlock[];
  /** What TCG translates into; null if there is none, or a fork is known not to copy it. */
  readonly codeBuffer: MemoryRegion | null;
}

export const blocksOf = ({ main, backends, others }: RamLayout): LocatedBlock[] => [
  main,
  ...backends.map(({ block }) => block),
  ...others,
];

/** Guest RAM in all its objects. */
export const ramBytesOf = ({ main, backends }: RamLayout): number =>
  backends.reduce((sum, { block }) => sum + block.length, main.length);

/** Blocks that QEMU fills from files of its own at every start; the guest does not write them. */
export const isRom = (name: string) => /\.rom$|^\/rom@|^pc\.bios$|^pc\.rom$|^bios\b|\.bios$/.test(name);

/** @throws StaghornError 'vm-unfit' if a block cannot be told apart from other mappings, or cannot be restored. */
export async function readRamLayout(
  qmp: QmpClient,
  pid: number,
  options: readonly CommandOption[],
): Promise<RamLayout> {
  const [first, table, memoryObjects] = await Promise.all([
    hmp(qmp, 'gpa2hva 0'),
    hmp(qmp, 'info ramblock'),
    qmp.execute('query-memdev'),
  ]);
  const hvaOfFirst = parseGpa2hva(first);
  if (hvaOfFirst === null) throw unfit(`QEMU does not tell where guest address 0 lies: ${first.trim()}`);
  const ramBlocks = parseRamBlocks(table);
  const names = ramBlocks.map(({ name }) => name).filter((name) => name !== hvaOfFirst.name);
  const ids = memoryObjects.flatMap(({ id }) => id ?? []);
  const found = ids.flatMap((id) => {
    const name = names.find((one) => one === id || one === `/objects/${id}`);
    return name === undefined ? [] : [{ id, name }];
  });
  const addresses = found.length === 0 ? new Map<string, bigint>() : await hostAddresses(qmp, found);
  const known = new Map(addresses).set(hvaOfFirst.name, hvaOfFirst.address);
  // The kernel walks through all pages for smaps. Without them only what has no address of its own cannot be found.
  const isPlain = ramBlocks.every(({ name }) => known.has(name) || isRom(name));
  const smaps = parseSmaps(await readFile(`/proc/${pid}/${isPlain ? 'maps' : 'smaps'}`, 'utf8'));
  const { blocks, ambiguous, missing } = locateRamBlocks({ smaps, ramBlocks, known });
  const main = blocks.find(({ name }) => name === hvaOfFirst.name);
  const unknown = [...ambiguous, ...missing].filter((name) => !isRom(name));
  if (main === undefined || unknown.length > 0) {
    throw unfit(`memory of ${unknown.join(', ')} cannot be told apart from other mappings of its QEMU`);
  }
  const plugged = found.length === 0 ? new Map<string, string | null>() : await pluggedBackends(qmp, options);
  const backends = found.map(({ id, name }) => {
    const device = plugged.get(id);
    if (device === undefined)
      throw unfit(`memory object ${id} is neither a NUMA node's nor a DIMM's: its device would lose it`);
    return { id, device, block: blocks.find((block) => block.name === name)! };
  });
  const others = blocks.filter(
    (block) => block !== main && !isRom(block.name) && !found.some(({ name }) => name === block.name),
  );
  return { main, backends, others, codeBuffer: locateCodeBuffer(smaps) };
}

/** Where blocks lie by way of their guest-physical addresses: several nodes or DIMMs may be of one size. */
async function hostAddresses(
  qmp: QmpClient,
  wanted: readonly { name: string }[],
): Promise<Map<string, bigint>> {
  const ranges = parseFlatView(await hmp(qmp, 'info mtree -f'));
  const addresses = new Map<string, bigint>();
  for (const { name } of wanted) {
    const range = ranges.find((one) => one.name === name);
    if (range === undefined) continue;
    const host = parseGpa2hva(await hmp(qmp, `gpa2hva 0x${range.guestAddress.toString(16)}`));
    if (host !== null) addresses.set(name, host.address - range.blockOffset);
  }
  return addresses;
}

/** Memory objects that a restore can plug in again, with the device that it has to add for it. */
async function pluggedBackends(
  qmp: QmpClient,
  options: readonly CommandOption[],
): Promise<Map<string, string | null>> {
  const plugged = new Map<string, string | null>();
  for (const numa of options.filter(({ name }) => name === 'numa')) {
    const id = /(?:^|,)memdev=([^,]+)/.exec(numa.value ?? '')?.[1];
    if (id !== undefined) plugged.set(id, null);
  }
  for (const { type, data } of await qmp.execute('query-memory-devices')) {
    if (type !== 'dimm') continue;
    const memdev = data.memdev.replace('/objects/', '');
    const written =
      findOption(options, 'device', 'memdev', memdev) ??
      (data.id === undefined ? null : findOption(options, 'device', 'id', data.id));
    plugged.set(memdev, written === null ? dimmOption(memdev, data) : null);
  }
  return plugged;
}

function dimmOption(memdev: string, { id, addr, slot, node }: DimmInfo): string {
  const parameters = new Map([['driver', 'pc-dimm']]);
  if (id !== undefined) parameters.set('id', id);
  parameters.set('memdev', memdev);
  // The guest knows it at this place: QEMU must not choose another.
  parameters.set('addr', String(addr)).set('slot', String(slot)).set('node', String(node));
  return formatParameters(parameters, 'driver');
}

interface DimmInfo {
  readonly id?: string;
  readonly addr: number;
  readonly slot: number;
  readonly node: number;
}

const unfit = (reason: string) => new StaghornError('vm-unfit', reason);

import { readFile } from 'node:fs/promises';

import { StaghornError } from '../errors/index.ts';
import {
  locateRamBlocks,
  parseGpa2hva,
  parseRamBlocks,
  parseSmaps,
  type LocatedBlock,
} from '../native/process-memory.ts';
import type { QmpClient } from '../qmp/index.ts';
import { hmp } from './connect-qmp.ts';

/** Where the memory of a VM lies in its QEMU's address space. */
export interface RamLayout {
  /** Main memory: the block at guest-physical address 0. */
  readonly main: LocatedBlock;
  /** Blocks that the guest writes and the device state does not hold, such as video memory. */
  readonly others: readonly LocatedBlock[];
}

/** Blocks that QEMU fills from files of its own at every start; the guest does not write them. */
const isRom = (name: string) => /\.rom$|^\/rom@|^pc\.bios$|^pc\.rom$|^bios\b|\.bios$/.test(name);

/** @throws StaghornError 'vm-unfit' if main memory cannot be told apart from other mappings. */
export async function readRamLayout(qmp: QmpClient, pid: number): Promise<RamLayout> {
  const hvaOfFirst = parseGpa2hva(await hmp(qmp, 'gpa2hva 0'));
  if (hvaOfFirst === null) throw unfit('QEMU does not tell where guest address 0 lies');
  const ramBlocks = parseRamBlocks(await hmp(qmp, 'info ramblock'));
  const smaps = parseSmaps(await readFile(`/proc/${pid}/smaps`, 'utf8'));
  const { blocks, ambiguous, missing } = locateRamBlocks({ smaps, ramBlocks, hvaOfFirst });
  const main = blocks.find(({ name }) => name === hvaOfFirst.name);
  const unknown = [...ambiguous, ...missing].filter((name) => !isRom(name));
  if (main === undefined || unknown.length > 0) {
    throw unfit(`memory of ${unknown.join(', ')} cannot be told apart from other mappings of its QEMU`);
  }
  return { main, others: blocks.filter((block) => block !== main && !isRom(block.name)) };
}

const unfit = (reason: string) => new StaghornError('vm-unfit', reason);

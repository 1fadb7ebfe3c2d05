import { readFile } from 'node:fs/promises';

import { StaghornError } from '../errors/index.ts';
import { locateRamBlocks, parseGpa2hva, parseRamBlocks, parseSmaps, type LocatedRamBlock } from '../native/process-memory.ts';
import type { QmpClient } from '../qmp/index.ts';
import { hmp } from './connect-qmp.ts';

/** Where the memory of a VM lies in its QEMU's address space. */
export interface RamLayout {
  /** Main memory: the block at guest-physical address 0. */
  readonly main: LocatedRamBlock;
  /** Blocks that the guest writes and the device state does not hold, such as video memory. */
  readonly others: readonly LocatedRamBlock[];
}

/** Blocks that QEMU fills from files of its own at every start; the guest does not write them. */
const isRom = (name: string) => /\.rom$|^\/rom@|^pc\.bios$|^pc\.rom$|^bios\b|\.bios$/.test(name);

/** @throws StaghornError 'vm-unfit' if main memory cannot be told apart from other mappings. */
export async function readRamLayout(qmp: QmpClient, pid: number): Promise<RamLayout> {
  const hva = parseGpa2hva(await hmp(qmp, 'gpa2hva 0'));
  const ramBlocks = parseRamBlocks(await hmp(qmp, 'info ramblock'));
  const smaps = parseSmaps(await readFile(`/proc/${pid}/smaps`, 'utf8'));
  const { located, missing } = locateRamBlocks({ smaps, ramBlocks, mainAddress: hva });
  const main = located.find(({ address }) => address === hva.address);
  if (main === undefined) {
    throw new StaghornError('vm-unfit', 'the guest’s main memory was not found among the mappings of its QEMU');
  }
  const unsaved = missing.filter((name) => !isRom(name));
  if (unsaved.length > 0) {
    throw new StaghornError('vm-unfit', `memory of ${unsaved.join(', ')} was not found among the mappings of its QEMU`);
  }
  return { main, others: located.filter((block) => block !== main && !isRom(block.name)) };
}

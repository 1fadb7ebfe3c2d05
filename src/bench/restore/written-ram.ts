import { randomFillSync } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';

import { parseSmaps } from '../../native/process-memory.ts';
import { writeMemory } from '../../native/ram.ts';

const mebibyte = 1024 * 1024;
const pageBytes = 4096;
const entryBytes = 8;
const noise = randomFillSync(Buffer.alloc(4 * mebibyte));

/**
 * Writes noise into all of a guest's RAM that it has never touched, so that it has something to save: to the guest
 * these pages are free, and Debian's kernel clears what it takes (CONFIG_INIT_ON_ALLOC_DEFAULT_ON).
 */
export async function writeUntouchedRam(pid: number, memoryMiB: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  try {
    await write(pid, memoryMiB);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

async function write(pid: number, memoryMiB: number): Promise<void> {
  const mappings = parseSmaps(await readFile(`/proc/${pid}/smaps`, 'utf8'));
  const ram = mappings.find(({ length }) => length === memoryMiB * mebibyte);
  if (ram === undefined) throw new Error(`process ${pid} has no mapping of ${memoryMiB} MiB`);
  for (const { page, count } of untouchedRuns(await readPagemap(pid, ram.address, ram.length))) {
    for (let done = 0; done < count * pageBytes; done += noise.length) {
      const bytes = noise.subarray(0, Math.min(noise.length, count * pageBytes - done));
      writeMemory({ pid, address: ram.address + BigInt(page * pageBytes + done), bytes });
    }
  }
}

/** Linux Documentation/admin-guide/mm/pagemap.rst: an entry of a page that nobody ever touched is 0. */
async function readPagemap(pid: number, address: bigint, length: number): Promise<BigUint64Array> {
  const entries = new BigUint64Array(length / pageBytes);
  const file = await open(`/proc/${pid}/pagemap`, 'r');
  try {
    const at = (Number(address) / pageBytes) * entryBytes;
    const { bytesRead } = await file.read(new Uint8Array(entries.buffer), 0, entries.byteLength, at);
    if (bytesRead !== entries.byteLength) throw new Error(`process ${pid} ended while its RAM was read`);
    return entries;
  } finally {
    await file.close();
  }
}

function* untouchedRuns(entries: BigUint64Array): Generator<{ page: number; count: number }> {
  for (let page = 0; page < entries.length; page++) {
    let end = page;
    while (end < entries.length && entries[end] === 0n) end++;
    if (end > page) yield { page, count: end - page };
    page = end;
  }
}

import { readFileSync } from 'node:fs';

import { writeMemory } from '../native/ram.ts';
import { parseProcessStat } from './process-identity.ts';

/**
 * How much real time restores have hidden from a VM, carried in the environment of its QEMU: so it lives and ends with
 * the process, and the next snapshot finds it whatever agent takes it.
 */
const variable = 'STAGHORN_HIDDEN_NS';

export function hiddenTimeEnvironment(hiddenNs: bigint): Record<string, string> {
  return { [variable]: valueOf(hiddenNs) };
}

/** Of one length, so that it can be set in place. */
const digits = 19;
const valueOf = (hiddenNs: bigint) => hiddenNs.toString().padStart(digits, '0');

/**
 * Sets it for a QEMU that is restored without being started again.
 * @returns false if there is no room for it in the process's environment; nothing is changed then
 */
export function setHiddenNs(pid: number, hiddenNs: bigint): boolean {
  const environment = readFileSync(`/proc/${pid}/environ`, 'latin1');
  const entry = new RegExp(`(?:^|\\0)${variable}=(?=\\d{${digits}}\\0)`).exec(environment);
  if (entry === null) return false;
  const offset = BigInt(entry.index + entry[0].length);
  const address = parseProcessStat(readFileSync(`/proc/${pid}/stat`, 'utf8')).environmentAddress + offset;
  writeMemory({ pid, address, bytes: Buffer.from(valueOf(hiddenNs), 'latin1') });
  return true;
}

/** 0 of a VM that was never restored, or that is gone. */
export function readHiddenNs(pid: number): bigint {
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    const value = environment.find((entry) => entry.startsWith(`${variable}=`))?.slice(variable.length + 1);
    return /^\d{1,19}$/.test(value ?? '') ? BigInt(value!) : 0n;
  } catch {
    return 0n;
  }
}

import { readFileSync } from 'node:fs';

/**
 * How much real time restores have hidden from a VM, carried in the environment of its QEMU: so it lives and ends with
 * the process, and the next snapshot finds it whatever agent takes it.
 */
const variable = 'STAGHORN_HIDDEN_NS';

export function hiddenTimeEnvironment(hiddenNs: bigint): Record<string, string> {
  return { [variable]: hiddenNs.toString() };
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

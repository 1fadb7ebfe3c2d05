import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../../errors/index.ts';
import { lockFile } from '../../native/descriptors.ts';

const pollMs = 20;
const boundMs = 60_000;

/** Runs alone among the processes of this host: the kernel frees the lock even if its holder is killed (flock(2)). */
export async function withRecoveryLock<T>(path: string, work: () => Promise<T>): Promise<T> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, 'w', 0o600);
  try {
    const startedAtMs = performance.now();
    while (!lockFile(file.fd)) {
      if (performance.now() - startedAtMs > boundMs) {
        throw new StaghornError(
          'host-unfit',
          `another process has been recovering this host for ${boundMs} ms`,
        );
      }
      await delay(pollMs);
    }
    return await work();
  } finally {
    await file.close();
  }
}

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { prepareGuestImages, type GuestImage } from '../../lab/guest-image.ts';
import { readSerial } from '../../lab/serial-log.ts';

const bootBoundMs = 120_000;
const pollMs = 50;

/** A directory for one measurement, gone with it. */
export async function withDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-bench-restore-'));
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export async function guestImage(signal: AbortSignal): Promise<GuestImage> {
  return (await prepareGuestImages(['cloud'], signal)).cloud;
}

export const guestArguments =
  'console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check mitigations=off sg.name=a sg.id=1';

/** Waits until a guest's probe says that it is up. */
export async function waitForBoot(serialLog: string, signal: AbortSignal): Promise<void> {
  const startedAtMs = performance.now();
  while (!(await readSerial(serialLog).catch(() => '')).includes('"booted"')) {
    if (performance.now() - startedAtMs > bootBoundMs)
      throw new Error(`a guest did not boot within ${bootBoundMs} ms`);
    await delay(pollMs, undefined, { signal });
  }
}

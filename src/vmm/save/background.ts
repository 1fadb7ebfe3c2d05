import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../../errors/index.ts';
import { pauseThreads } from '../../native/paused-threads.ts';
import type { QmpClient, QmpEvent } from '../../qmp/index.ts';
import type { KeptRam, RamKeeper, SaveTarget } from './keeper.ts';
import { OutgoingMigration } from './migration.ts';

const capability = 'background-snapshot';
const turnTimeoutMs = 4_000;
const stopLookMs = 1;
const stopLooks = 20;
const futexCall = '202';

/**
 * QEMU's own background snapshot (migration/migration.c, bg_migration_thread): it write-protects RAM and sends each
 * page before the VM changes it. It resumes the VM by itself, also one that was paused, so it is stopped again at once,
 * and its vCPUs do not run in between.
 */
export async function keeperByBackground(target: SaveTarget): Promise<RamKeeper> {
  const cpus = await target.qmp.execute('query-cpus-fast');
  const threads = [...new Set(cpus.map((cpu) => cpu['thread-id']))];
  const migration = await OutgoingMigration.prepare(target, [capability]);
  let received: Promise<void> = Promise.resolve();
  return {
    keep: async (): Promise<KeptRam> => {
      const resumed = target.qmp.waitEvent('RESUME', { timeoutMs: turnTimeoutMs });
      resumed.catch(() => undefined);
      const held = await pauseThreads(threads);
      let stopped: Promise<QmpEvent>;
      try {
        if (held.paused < threads.length)
          throw new Error('its vCPUs could not be held: somebody traces them');
        await migration.start();
        received = migration.receiveAll();
        received.catch(() => undefined);
        await Promise.race([resumed, received.then(() => resumed)]);
        stopped = target.qmp.waitEvent('STOP', { timeoutMs: turnTimeoutMs });
        stopped.catch(() => undefined);
        await stopAgain(target);
      } finally {
        held.end();
      }
      const ranNs = Number((await stopped).timestampNs - (await resumed).timestampNs);
      return {
        forkNs: null,
        ranNs,
        write: async (block, file, options) => {
          await received;
          return migration.write(block, file, options);
        },
      };
    },
    close: () => migration.close(),
  };
}

/** Until QEMU's main thread waits for its vCPUs to stop: let go before, they would run guest code (softmmu/cpus.c). */
async function stopAgain({ qmp, pid }: SaveTarget): Promise<void> {
  qmp.execute('stop', {}, { timeoutMs: turnTimeoutMs }).catch(() => undefined);
  for (let look = 0; look < stopLooks; look++) {
    await delay(stopLookMs);
    if (readFileSync(`/proc/${pid}/task/${pid}/syscall`, 'utf8').startsWith(`${futexCall} `)) return;
  }
  throw new StaghornError('vm-failed', 'QEMU did not stop again after its background snapshot had begun');
}

/** Null if QEMU takes the capability on this host, else what it says. It is switched off again. */
export async function backgroundObstacle(qmp: QmpClient): Promise<string | null> {
  const known = await qmp.execute('query-migrate-capabilities');
  const own = known.find((one) => one.capability === capability);
  if (own === undefined) return 'its QEMU has no background snapshots (6.0 and later have)';
  const iothreads = await qmp.execute('query-iothreads');
  if (Array.isArray(iothreads) && iothreads.length > 0)
    return 'it has I/O threads, which would go on while QEMU resumes by itself';
  try {
    await setCapability(qmp, true);
    await setCapability(qmp, own.state);
    return null;
  } catch (error) {
    return `QEMU refuses it: ${error instanceof Error ? error.message : String(error)}`;
  }
}

const setCapability = (qmp: QmpClient, state: boolean) =>
  qmp.execute('migrate-set-capabilities', { capabilities: [{ capability, state }] });

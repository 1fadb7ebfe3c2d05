import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../../errors/index.ts';
import { pauseThreads, type PausedThreads } from '../../native/paused-threads.ts';
import type { QmpClient } from '../../qmp/index.ts';
import type { KeptRam, RamKeeper, SaveTarget } from './keeper.ts';
import { OutgoingMigration } from './migration.ts';

const capability = 'background-snapshot';
const protectTimeoutMs = 10_000;
const restPollMs = 1;
const restPolls = 50;
const ppollCall = '271';

/**
 * QEMU's own background snapshot (migration/migration.c, bg_migration_thread): it write-protects RAM and sends each
 * page before the VM changes it. It resumes the VM by itself, also one that was paused, by a bottom half of its main
 * thread. So that thread is held before QEMU protects RAM, and let go when the VM is to go on.
 */
export async function keeperByBackground(target: SaveTarget): Promise<RamKeeper> {
  const migration = await OutgoingMigration.prepare(target, [capability], { plugged: true });
  let held: PausedThreads | undefined;
  return {
    keep: async (): Promise<KeptRam> => {
      await migration.start();
      held = await holdAtRest(target.pid);
      let received: Promise<void>;
      try {
        await inTime(migration.receiveFirst());
        received = migration.receiveAll();
        received.catch(() => undefined);
      } catch (error) {
        held.end();
        throw error;
      }
      return {
        forkNs: null,
        held,
        write: async (block, file, options) => {
          await received;
          return migration.write(block, file, options);
        },
      };
    },
    close: async () => {
      held?.end();
      await migration.close();
    },
  };
}

/** Its main thread, in the midst of its ppoll: there it has QEMU's big lock not (util/main-loop.c, os_host_main_loop_wait). */
async function holdAtRest(mainThread: number): Promise<PausedThreads> {
  for (let poll = 0; poll < restPolls; poll++) {
    const held = await pauseThreads([mainThread]);
    if (held.paused === 1 && systemCallOf(mainThread) === ppollCall) return held;
    held.end();
    if (held.paused === 0)
      throw new StaghornError('vm-failed', 'its main thread could not be held: somebody traces it');
    await delay(restPollMs);
  }
  throw new StaghornError('vm-failed', 'its main thread did not come to rest');
}

const systemCallOf = (thread: number) =>
  readFileSync(`/proc/${thread}/task/${thread}/syscall`, 'utf8').split(' ', 1)[0];

/** The first page comes when all RAM is protected. */
async function inTime(first: Promise<void>): Promise<void> {
  const timeout = new AbortController();
  try {
    await Promise.race([
      first,
      delay(protectTimeoutMs, undefined, { signal: timeout.signal }).then(() => {
        throw new StaghornError('vm-failed', 'QEMU did not protect RAM in time');
      }),
    ]);
  } finally {
    timeout.abort();
  }
}

/** Null if QEMU takes the capability on this host, else what it says. It is switched off again. */
export async function backgroundObstacle(qmp: QmpClient): Promise<string | null> {
  const known = await qmp.execute('query-migrate-capabilities');
  const own = known.find((one) => one.capability === capability);
  if (own === undefined) return 'its QEMU has no background snapshots (6.0 and later have)';
  if (!(await qmp.execute('query-status')).running)
    return 'it is paused, and would run when QEMU ends a background snapshot';
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

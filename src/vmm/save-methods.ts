import { saveMethod, type MethodChoice, type SaveMethod } from '../protocol/vm.ts';
import type { QmpClient } from '../qmp/index.ts';
import type { RamLayout } from './ram-layout.ts';
import { backgroundObstacle, keeperByBackground } from './save/background.ts';
import { forkObstacle, keeperByFork } from './save/fork.ts';
import type { PrepareKeeper } from './save/keeper.ts';
import { keeperByPrecopy } from './save/precopy.ts';
import { keeperByCopy, sharedObstacle } from './save/shared.ts';
import { keeperInPlace } from './save/stop-copy.ts';

export type { KeptRam, RamKeeper } from './save/keeper.ts';

export interface SaveMethodEntry {
  readonly prepare: PrepareKeeper;
  /** Whether RAM has to be written before the VM may go on. */
  readonly copiesWhileStopped: boolean;
  /** How often RAM is on the disk of the store until it is stored. */
  readonly copiesOnDisk: 1 | 2;
}

export const saveMethods: Readonly<Record<SaveMethod, SaveMethodEntry>> = {
  fork: { prepare: keeperByFork, copiesWhileStopped: false, copiesOnDisk: 1 },
  background: { prepare: keeperByBackground, copiesWhileStopped: false, copiesOnDisk: 2 },
  precopy: { prepare: keeperByPrecopy, copiesWhileStopped: false, copiesOnDisk: 2 },
  shared: { prepare: keeperByCopy, copiesWhileStopped: false, copiesOnDisk: 1 },
  'stop-copy': { prepare: keeperInPlace, copiesWhileStopped: true, copiesOnDisk: 1 },
};

/** For each method null if it would work on this VM, or why not. */
export async function probeMethods(
  { pid, qmp }: { pid: number; qmp: QmpClient },
  layout: RamLayout | string,
): Promise<Record<SaveMethod, string | null>> {
  if (typeof layout === 'string') return noMethod(layout);
  const { status = 'none' } = await qmp.execute('query-migrate');
  const migrating = ['none', 'completed', 'failed', 'cancelled'].includes(status)
    ? null
    : `a migration is under way (${status})`;
  return {
    fork: await forkObstacle(pid, layout),
    background: migrating ?? (await backgroundObstacle(qmp)),
    precopy: migrating,
    shared: await sharedObstacle(layout),
    'stop-copy': null,
  };
}

export function noMethod(reason: string): Record<SaveMethod, string | null> {
  const { options } = saveMethod;
  return Object.fromEntries(options.map((method) => [method, reason])) as Record<SaveMethod, string>;
}

/** Without background, whose pause was not measured against the others' (docs/decisions/0015). */
const automatic: readonly SaveMethod[] = ['fork', 'precopy', 'shared', 'stop-copy'];

/** The method for a VM: the chosen one, or for auto the first that works, the shortest pause first. */
export function chooseMethod(
  choice: MethodChoice,
  methods: Record<SaveMethod, string | null>,
): SaveMethod | null {
  const candidates: readonly SaveMethod[] = choice === 'auto' ? automatic : [choice];
  return candidates.find((method) => methods[method] === null) ?? null;
}

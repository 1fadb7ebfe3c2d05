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

/** What somebody wants to know of a VM's methods: of one, of the first that works, of all, or nothing. */
export type MethodWish = MethodChoice | 'all' | 'none';

/** What is looked at to find out whether a method would work on a VM. */
interface Probed {
  readonly pid: number;
  readonly qmp: QmpClient;
  readonly layout: RamLayout;
}

const probes: Readonly<Record<SaveMethod, (vm: Probed) => string | null | Promise<string | null>>> = {
  fork: ({ pid, layout }) => forkObstacle(pid, layout),
  background: async ({ qmp }) => (await migrationObstacle(qmp)) ?? (await backgroundObstacle(qmp)),
  precopy: ({ qmp }) => migrationObstacle(qmp),
  shared: ({ layout }) => sharedObstacle(layout),
  'stop-copy': () => null,
};

async function migrationObstacle(qmp: QmpClient): Promise<string | null> {
  const { status = 'none' } = await qmp.execute('query-migrate');
  const isFree = ['none', 'completed', 'failed', 'cancelled'].includes(status);
  return isFree ? null : `a migration is under way (${status})`;
}

/**
 * For each method null if it would work on this VM, or why not.
 * @param wish only what it takes to choose is looked at: the one method, or for auto those up to the first that works
 */
export async function probeMethods(
  { pid, qmp }: { pid: number; qmp: QmpClient },
  layout: RamLayout | string,
  wish: MethodWish = 'all',
): Promise<Record<SaveMethod, string | null>> {
  if (typeof layout === 'string') return noMethod(layout);
  const found = noMethod('it was not looked at: it is not needed');
  for (const method of candidatesOf(wish)) {
    found[method] = await probes[method]({ pid, qmp, layout });
    if (wish === 'auto' && found[method] === null) break;
  }
  return found;
}

function candidatesOf(wish: MethodWish): readonly SaveMethod[] {
  if (wish === 'none') return [];
  if (wish === 'all') return saveMethod.options;
  return wish === 'auto' ? automatic : [wish];
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
  return candidatesOf(choice).find((method) => methods[method] === null) ?? null;
}

import type { Rolling } from '../../protocol/rolling.ts';
import { formatFields, formatTable } from '../table.ts';
import { formatDuration } from '../units.ts';

export function describeRolling(plan: Rolling): string {
  return formatFields([
    ['experiment', plan.experiment],
    ['every', formatDuration(plan.everySeconds * 1e9)],
    ['keeps', plan.keep],
    ['next', plan.nextAt],
    ['taken', plan.taken],
    ['skipped', plan.skipped],
    ['last', plan.lastSnapshot],
    ['last error', plan.lastError === null ? null : `${plan.lastError.at}: ${plan.lastError.detail}`],
  ]);
}

export function listRolling(all: readonly Rolling[]): string {
  const rows = all.map((plan) => [
    plan.experiment,
    formatDuration(plan.everySeconds * 1e9),
    plan.keep,
    plan.taken,
    plan.skipped,
    plan.nextAt,
    plan.lastSnapshot ?? '-',
    plan.lastError === null ? '-' : plan.lastError.code,
  ]);
  return formatTable(['EXPERIMENT', 'EVERY', 'KEEPS', 'TAKEN', 'SKIPPED', 'NEXT', 'LAST', 'ERROR'], rows);
}

import type { Operation } from '../../protocol/resources.ts';
import { formatTable } from '../table.ts';
import { formatDuration } from '../units.ts';

export function listOperations(all: readonly Operation[]): string {
  const rows = all.map(({ id, kind, experiment, snapshot, state, startedAt, endedAt, progress, error }) => [
    id,
    kind,
    experiment ?? '-',
    snapshot ?? '-',
    state,
    startedAt,
    endedAt === null ? '-' : formatDuration((Date.parse(endedAt) - Date.parse(startedAt)) * 1e6),
    error?.detail ?? (state === 'running' ? (progress?.message ?? '') : ''),
  ]);
  return formatTable(['ID', 'KIND', 'EXPERIMENT', 'SNAPSHOT', 'STATE', 'STARTED', 'TOOK', 'DETAIL'], rows);
}

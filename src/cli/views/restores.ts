import type { RestoreResult, Snapshot } from '../../protocol/resources.ts';
import { formatCount, formatDuration } from '../units.ts';
import { formatWarnings } from './warnings.ts';

export function describeRestore({ id, experiment }: Snapshot, result: RestoreResult): string {
  const { vms, durationMs, framesDelivered, dryRun, paused, warnings } = result;
  const tail = `${clockLine(result)}${formatWarnings(warnings)}`;
  if (dryRun) return `${id} fits: ${formatCount(vms, 'VM')} would be restored\n${doomed(result)}${tail}`;
  const done = `restored ${id}: ${formatCount(vms, 'VM')} in ${formatDuration(durationMs * 1e6)}`;
  return paused
    ? `${done}; time stays stopped until: staghorn experiment resume ${experiment}\n${tail}`
    : `${done}, ${formatCount(framesDelivered, 'frame')} delivered\n${tail}`;
}

function doomed({ destroyed }: RestoreResult): string {
  const names = destroyed.map(({ vm }) => vm).join(', ');
  return names === '' ? '' : `running VMs that would be destroyed: ${names}\n`;
}

function clockLine({ clock }: RestoreResult): string {
  if (clock?.mode !== 'advance') return '';
  const behind = formatDuration((clock.behindMs ?? 0) * 1e6);
  return `guests were set ahead by ${formatDuration(clock.advancedMs * 1e6)}; their clocks are ${behind} behind\n`;
}

import type { Snapshot } from '../../protocol/resources.ts';
import { formatFields, formatTable } from '../table.ts';
import { formatBytes, formatDuration } from '../units.ts';
import { formatWarnings } from './warnings.ts';

export function listSnapshots(all: readonly Snapshot[]): string {
  const rows = all.map((one) => [
    one.id,
    one.experiment,
    one.name ?? '-',
    one.state,
    one.methods.join(','),
    one.vms.length,
    one.framesInFlight,
    formatDuration(one.pauseNs.max),
    formatBytes(one.bytes),
  ]);
  return formatTable(['ID', 'EXPERIMENT', 'NAME', 'STATE', 'METHOD', 'VMS', 'FRAMES', 'PAUSE', 'SIZE'], rows);
}

export function describeSnapshot(one: Snapshot): string {
  const { pauseNs, vms } = one;
  const head = formatFields([
    ['snapshot', one.id],
    ['experiment', one.experiment],
    ['name', one.name],
    ['description', one.description],
    ['created', one.createdAt],
    ['state', one.state],
    ['method', one.methods.join(', ')],
    ['paused for', `${formatDuration(pauseNs.min)} to ${formatDuration(pauseNs.max)}`],
    ['spread of pauses', formatDuration(pauseNs.max - pauseNs.min)],
    ['skew', `${formatDuration(one.skewNs)} (± ${formatDuration(one.clockErrorNs)})`],
    ['drained in', formatDuration(one.drainMs * 1e6)],
    ['in flight', `${one.framesInFlight} frames`],
    ['stored', formatBytes(one.bytes)],
  ]);
  const rows = vms.map((vm) => [
    vm.host,
    vm.name,
    vm.method,
    formatDuration(vm.pauseNs),
    formatDuration(vm.stopOffsetNs),
    vm.resumeOffsetNs === null ? '-' : formatDuration(vm.resumeOffsetNs),
    formatBytes(vm.ramBytes),
    formatBytes(vm.stateBytes),
    vm.framesInFlight,
  ]);
  const headings = ['HOST', 'VM', 'METHOD', 'PAUSE', 'STOPPED AT', 'RESUMED AT', 'RAM', 'STATE', 'FRAMES'];
  return `${head}\n${formatTable(headings, rows)}\n${describeHosts(one)}${formatWarnings(one.warnings)}`;
}

/** How well each host made the cut. */
function describeHosts({ hosts }: Snapshot): string {
  const rows = hosts.map(({ host, clockErrorNs, clockSource, wakeLatenessNs, realtime }) => [
    host,
    `± ${formatDuration(clockErrorNs)}${clockSource === 'utc' ? ' by UTC' : ''}`,
    formatDuration(wakeLatenessNs),
    realtime ? 'yes' : 'no',
  ]);
  return formatTable(['HOST', 'CLOCK', 'WOKE LATE BY', 'REAL-TIME'], rows);
}

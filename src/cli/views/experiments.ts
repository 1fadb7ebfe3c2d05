import type { Experiment, ExperimentPort, ExperimentVm } from '../../protocol/resources.ts';
import { formatFields, formatTable } from '../table.ts';
import { formatBytes } from '../units.ts';

export function listExperiments(all: readonly Experiment[]): string {
  const rows = all.map(({ name, state, hosts, createdAt, description }) => [
    name,
    state,
    hosts.map((host) => host.name).join(','),
    createdAt,
    description ?? '',
  ]);
  return formatTable(['NAME', 'STATE', 'HOSTS', 'CREATED', 'DESCRIPTION'], rows);
}

export function describeExperiment(
  { name, state, description, createdAt, fork }: Experiment,
  vms: readonly ExperimentVm[],
  ports: readonly ExperimentPort[],
): string {
  const head = formatFields([
    ['experiment', name],
    ['state', state],
    ['description', description],
    ['fork of', fork?.snapshot],
    ['created', createdAt],
  ]);
  return [head, vmTable(vms), ...methodTable(vms), portTable(ports)].join('\n');
}

function vmTable(vms: readonly ExperimentVm[]): string {
  const rows = vms.map((vm) => [
    vm.host,
    vm.name,
    vm.status ?? '?',
    vm.ramBytes === null ? '?' : formatBytes(vm.ramBytes),
    vm.qemuVersion ?? '?',
    methodsOf(vm).join(',') || '-',
    vm.obstacles.join('; '),
  ]);
  return formatTable(['HOST', 'VM', 'STATUS', 'RAM', 'QEMU', 'METHODS', 'OBSTACLES'], rows);
}

/** Those by which it could be saved: the value is why not. */
function methodsOf({ methods }: ExperimentVm): string[] {
  return Object.entries(methods)
    .filter(([, whyNot]) => whyNot === null)
    .map(([method]) => method);
}

/** Why VMs cannot be saved by the other methods; nothing where all would do. */
function methodTable(vms: readonly ExperimentVm[]): string[] {
  const rows = vms.flatMap(({ host, name, methods }) =>
    Object.entries(methods).flatMap(([method, whyNot]) =>
      whyNot === null ? [] : [[host, name, method, whyNot]],
    ),
  );
  return rows.length === 0 ? [] : [formatTable(['HOST', 'VM', 'NOT BY', 'BECAUSE'], rows)];
}

function portTable(ports: readonly ExperimentPort[]): string {
  const rows = ports.map(({ host, vm, tap, mac, model, mtu, switchPort }) => [
    host,
    vm,
    tap,
    mac,
    model,
    mtu,
    switchPort?.bridge ?? '-',
    switchPort?.tag ?? '-',
  ]);
  return formatTable(['HOST', 'VM', 'TAP', 'MAC', 'MODEL', 'MTU', 'BRIDGE', 'VLAN'], rows);
}

import { availableParallelism } from 'node:os';
import { StaghornError, messageOf } from '../errors/index.ts';
import { runInHost } from './host.ts';
import { serialLog, vmFiles } from './paths.ts';
import type { LabPlan, VmPlan } from './plan.ts';
import { until } from './processes.ts';
import { readGuestLines, serialTail } from './serial-log.ts';
import { portCommands } from './switches.ts';
import { diskCommands } from './vm-disks.ts';
import { qemuCommand, type Machine } from './vm.ts';

const POLL_MS = 50;

interface Boot {
  readonly plan: LabPlan;
  readonly machine: Machine;
  readonly signal: AbortSignal;
  readonly onReady: (vm: VmPlan) => void;
}

async function failure(plan: LabPlan, vm: VmPlan, what: string): Promise<StaghornError> {
  const tail = await serialTail(serialLog(plan.name, vm.host, vm.name));
  const said = tail === '' ? 'its serial log is empty' : `its serial log ends with:\n${tail}`;
  return new StaghornError('vm-failed', `VM "${vm.name}" ${what}; ${said}`, {
    context: { host: vm.host, vm: vm.name },
  });
}

async function hasSaid(plan: LabPlan, vm: VmPlan, mark: 'booted' | 'ready'): Promise<boolean> {
  const lines = await readGuestLines(serialLog(plan.name, vm.host, vm.name));
  return lines.some(({ t }) => t === mark);
}

/** QEMU ends with the guest (`-no-reboot`, `panic=-1`), and then no waiting helps. */
async function qemuRuns(plan: LabPlan, vm: VmPlan, signal: AbortSignal): Promise<boolean> {
  const check = ['sh', '-c', 'kill -0 "$(cat "$1")"', 'sh', vmFiles(vm.name).pid];
  return runInHost({ lab: plan.name, host: vm.host }, check, { signal }).then(
    () => true,
    () => false,
  );
}

async function waitFor({ plan, signal }: Boot, vm: VmPlan, mark: 'booted' | 'ready'): Promise<void> {
  const end = performance.now() + plan.bootDeadlineMs;
  while (performance.now() < end) {
    const said = await until(() => hasSaid(plan, vm, mark), { timeoutMs: 2000, everyMs: POLL_MS, signal });
    if (said) return;
    if (!(await qemuRuns(plan, vm, signal))) throw await failure(plan, vm, 'ended while it booted');
  }
  throw await failure(plan, vm, `was not ${mark} after ${plan.bootDeadlineMs / 1000} s`);
}

async function launch(boot: Boot, vm: VmPlan): Promise<void> {
  const { plan, machine, signal } = boot;
  const at = { lab: plan.name, host: vm.host };
  try {
    for (const command of portCommands(vm)) await runInHost(at, command, { signal });
    for (const command of diskCommands(vm)) await runInHost(at, command, { signal });
    await runInHost(at, qemuCommand(vm, machine), { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    const message = `VM "${vm.name}" could not be started: ${messageOf(error)}`;
    throw new StaghornError('vm-failed', message, { cause: error, context: { host: vm.host, vm: vm.name } });
  }
  await waitFor(boot, vm, 'booted');
}

/**
 * Boots all VMs, but not more at once than the machine has cores and two, and waits until each has heard all of
 * its peers by UDP and TCP.
 * @throws StaghornError 'vm-failed' with the end of the guest's serial log
 */
export async function bootVms(boot: Boot): Promise<void> {
  const waiting = [...boot.plan.vms];
  const worker = async (): Promise<void> => {
    for (let vm = waiting.shift(); vm !== undefined; vm = waiting.shift()) await launch(boot, vm);
  };
  await Promise.all(Array.from({ length: availableParallelism() + 2 }, worker));
  const becomeReady = async (vm: VmPlan): Promise<void> => {
    await waitFor(boot, vm, 'ready');
    boot.onReady(vm);
  };
  await Promise.all(boot.plan.vms.map(becomeReady));
}

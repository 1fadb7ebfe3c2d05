import { StaghornError } from '../errors/index.ts';
import { VmPorts } from '../network/vm-ports.ts';
import type { Logger } from '../protocol/logger.ts';
import type { AgentParams } from '../protocol/rpc.ts';
import type { MethodChoice, SaveMethod } from '../protocol/vm.ts';
import type { SnapshotStore } from '../store/snapshot-directory.ts';
import { ControlledVm } from '../vmm/controlled-vm.ts';
import { requireFit, type HostSurroundings } from '../vmm/inspect.ts';
import { chooseMethod } from '../vmm/save-methods.ts';
import { readSurroundings, selectProcesses, switchedDevices } from './host-inventory.ts';
import type { IntentJournal } from './intent.ts';
import { intentOf } from './intent-of-group.ts';
import { SnapshotWriter } from './snapshot-writer.ts';
import { StopSession, type SessionReports } from './stop-session.ts';
import { VmGroup } from './vm-group.ts';

export interface ArmTools {
  readonly store: SnapshotStore;
  readonly journal: IntentJournal;
  readonly reports: SessionReports;
  readonly log: Logger;
}

/** What the manifest, frames and checksums may need beside RAM. */
const spareBytes = 64 * 1024 * 1024;

/**
 * Makes everything ready for a cut; nothing in the experiment changes. Whatever fails, all is taken back.
 * @throws StaghornError 'not-found', 'vm-unfit', 'network-unfit', 'host-unfit', 'disk-full'
 */
export async function arm(
  params: AgentParams<'arm'>,
  tools: ArmTools,
  signal: AbortSignal,
): Promise<StopSession> {
  const undo: (() => unknown)[] = [];
  try {
    const surroundings = await readSurroundings(signal);
    const vms = await openVms(params.vms, surroundings, signal, undo);
    const chosen = params.snapshot === null ? [] : await chooseMethods(params.method, vms, tools.store);
    const ports = VmPorts.create({
      ports: VmGroup.portsOf(vms),
      ringBytes: params.frameBufferBytes,
      hold: false,
    });
    undo.push(() => ports.close());
    const group = new VmGroup(vms, ports);
    const stops = new Map<string, bigint>();
    undo.push(() => tools.journal.remove(params.barrier));
    await tools.journal.write(
      intentOf({
        barrier: params.barrier,
        kind: 'stop',
        phase: 'armed',
        snapshot: params.snapshot,
        group,
        stops,
      }),
    );
    // After the intent: whoever finds it removes these too.
    ports.prepareLeftovers(tools.journal.leftoversOf(params.barrier));
    const writer =
      params.snapshot === null ? null : await prepareWriter(params.snapshot, chosen, tools.store, undo);
    ports.attach();
    signal.throwIfAborted();
    return new StopSession({
      params,
      group,
      writer,
      switchedDevices: switchedDevices(surroundings),
      warnings: [],
      ...tools,
    });
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

async function openVms(
  names: string[] | null,
  surroundings: HostSurroundings,
  signal: AbortSignal,
  undo: (() => unknown)[],
): Promise<ControlledVm[]> {
  const processes = await selectProcesses(names);
  if (processes.length === 0) throw new StaghornError('not-found', 'no QEMU runs on this host');
  const results = await Promise.allSettled(
    processes.map(async (process) => {
      const vm = await ControlledVm.open(process, surroundings, signal);
      undo.push(() => vm.close());
      return vm;
    }),
  );
  const failures = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as unknown] : [],
  );
  if (failures.length > 0) throw failures[0];
  const vms = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  requireFit(vms.map(({ vm }) => vm));
  return vms;
}

interface ChosenMethod {
  readonly vm: ControlledVm;
  readonly method: SaveMethod;
}

async function chooseMethods(
  choice: MethodChoice,
  vms: readonly ControlledVm[],
  store: SnapshotStore,
): Promise<ChosenMethod[]> {
  const chosen = vms.map((vm) => ({ vm, method: requireMethod(vm, choice) }));
  await requireSpace(vms, store);
  return chosen;
}

async function prepareWriter(
  snapshot: string,
  chosen: readonly ChosenMethod[],
  store: SnapshotStore,
  undo: (() => unknown)[],
): Promise<SnapshotWriter> {
  const directory = await store.create(snapshot);
  undo.push(() => directory.discard());
  await Promise.all(chosen.map(({ vm, method }) => vm.prepareSave(method)));
  return new SnapshotWriter(directory, chosen);
}

function requireMethod({ name, vm }: ControlledVm, choice: MethodChoice): SaveMethod {
  const method = chooseMethod(choice, vm.methods);
  if (method !== null) return method;
  const reasons = Object.entries(vm.methods).flatMap(([tried, reason]) =>
    reason !== null && (choice === 'auto' || choice === tried) ? [`${tried}: ${reason}`] : [],
  );
  throw new StaghornError(
    'vm-unfit',
    `VM ${name} cannot be saved by method ${choice}: ${reasons.join('; ')}`,
    {
      context: { vm: name },
    },
  );
}

async function requireSpace(vms: readonly ControlledVm[], store: SnapshotStore): Promise<void> {
  const neededBytes = vms.reduce((sum, { layout }) => sum + layout.main.length, spareBytes);
  const freeBytes = await store.freeBytes();
  if (freeBytes >= neededBytes) return;
  const mebibytes = (bytes: number) => `${Math.ceil(bytes / 1024 / 1024)} MiB`;
  throw new StaghornError(
    'disk-full',
    `the snapshot may need ${mebibytes(neededBytes)} and ${mebibytes(freeBytes)} are free in the snapshot store`,
  );
}

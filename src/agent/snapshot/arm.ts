import { allOf, StaghornError } from '../../errors/index.ts';
import type { EdgePorts } from '../../network/edge-ports.ts';
import type { SpareGate } from '../../network/spare-gate.ts';
import type { OpenFlowMemory } from '../../network/switches/openflow-memory.ts';
import { connectSwitches } from '../../network/switches/ports.ts';
import { ReceiveBuffers } from '../../network/switches/receive-buffers.ts';
import { VmPorts } from '../../network/vm-ports.ts';
import type { OvsdbClient } from '../../ovsdb/index.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { AgentParams } from '../../protocol/rpc.ts';
import type { MethodChoice, SaveMethod } from '../../protocol/vm.ts';
import type { PartialSnapshot, SnapshotStore } from '../../store/snapshot-directory.ts';
import { ControlledVm } from '../../vmm/controlled-vm.ts';
import { overlaySpareBytes, type DiskDirectory } from '../../vmm/disks/disk-directory.ts';
import { requireFit, type HostSurroundings } from '../../vmm/inspect.ts';
import { ramBytesOf } from '../../vmm/ram-layout.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';
import { chooseMethod, saveMethods } from '../../vmm/save-methods.ts';
import { edgeOf } from '../session/edge-of-host.ts';
import { selectProcesses, surroundingsIn, switchedDevices } from '../host-inventory.ts';
import type { IntentJournal } from '../session/intent.ts';
import { intentOf, intentWithoutGroup } from '../session/intent-of-group.ts';
import { NetworkWatch } from './network-watch.ts';
import { RamStorage } from './ram-storage.ts';
import { SnapshotWriter } from './snapshot-writer.ts';
import { SwitchSaver } from './switch-saver.ts';
import { StopSession, type SessionReports } from './stop-session.ts';
import { VmGroup } from '../session/vm-group.ts';

export interface ArmTools {
  readonly store: SnapshotStore;
  readonly disks: DiskDirectory;
  readonly journal: IntentJournal;
  readonly reports: SessionReports;
  readonly log: Logger;
  readonly kept: KeptBetweenSnapshots;
}

/** What one barrier leaves for the next one, which saves making or asking it again. */
export interface KeptBetweenSnapshots {
  readonly gate: SpareGate;
  readonly openFlow: OpenFlowMemory;
}

/** What is to be taken back if arming fails is added as it is made. */
interface Undoing {
  readonly signal: AbortSignal;
  readonly undo: (() => unknown)[];
}

/** Identities (16 bytes for each page) and places (1 KiB for each MiB). */
const besideRam = 16 / 4096 + 1024 / 2 ** 20;
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
    const database = await connectSwitches(signal);
    undo.push(() => database.close());
    const [surroundings, processes] = await allOf([
      surroundingsIn(database, signal),
      selectProcesses(params.vms),
    ]);
    const { barrier, snapshot } = params;
    const entry = { barrier, kind: 'stop', phase: 'armed', snapshot } as const;
    const buffers = await ReceiveBuffers.find(switchedDevices(surroundings));
    undo.push(() => tools.journal.remove(params.barrier));
    undo.push(() => buffers.putBack());
    await tools.journal.write(intentWithoutGroup({ ...entry, buffers: buffers.former }));
    // After the intent: whoever finds it takes these back too. And first of all: what follows keeps a switch waiting.
    buffers.enlarge();
    const vms = await openVms(processes, surroundings, params, { signal, undo });
    const watch = await watchNetwork(params, vms, database, { signal, undo });
    const chosen = params.snapshot === null ? [] : await chooseMethods(params.method, vms, tools.store);
    const ports = VmPorts.create({
      ports: VmGroup.portsOf(vms),
      ringBytes: params.frameBufferBytes,
      hold: false,
      spare: tools.kept.gate,
    });
    undo.push(() => ports.close());
    const edge = armEdge(params, surroundings, watch, undo);
    const group = new VmGroup(vms, ports, edge, buffers);
    await tools.journal.write(intentOf({ ...entry, group, stops: new Map() }));
    ports.prepareLeftovers(tools.journal.leftoversOf(params.barrier));
    const { writer, warnings } =
      params.snapshot === null
        ? { writer: null, warnings: [] }
        : await prepareWriter(
            { ...params, snapshot: params.snapshot },
            chosen,
            { ...surroundings, database },
            tools,
            { signal, undo },
          );
    group.attach();
    signal.throwIfAborted();
    return new StopSession({
      params,
      group,
      writer,
      switchedDevices: switchedDevices(surroundings),
      watch,
      warnings: [...watch.undeclared.map(describeUndeclared), ...warnings],
      ...tools,
    });
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

/** Makes ready to keep what the snapshot is of: each part waits for another program, and none for another part. */
async function prepareWriter(
  params: AgentParams<'arm'> & { snapshot: string },
  chosen: readonly ChosenMethod[],
  { links, database }: Pick<HostSurroundings, 'links'> & { database: OvsdbClient },
  tools: ArmTools,
  { signal, undo }: Undoing,
): Promise<{ writer: SnapshotWriter; warnings: string[] }> {
  const vms = chosen.map(({ vm }) => vm);
  const [switches, losses, storage, directory] = await allOf([
    SwitchSaver.prepare(links, vms, { database, openFlow: tools.kept.openFlow, signal }),
    allOf(vms.map((vm) => vm.losses())),
    RamStorage.prepare(params, tools.store, vms, signal),
    prepareDirectory(params.snapshot, chosen, params.ram, tools, undo),
  ]);
  const warnings = [...switches.warnings, ...losses.flat(), ...storage.warnings];
  return { writer: new SnapshotWriter(directory, chosen, switches, storage), warnings };
}

async function watchNetwork(
  { externalPorts: external }: AgentParams<'arm'>,
  vms: readonly ControlledVm[],
  database: OvsdbClient,
  { signal, undo }: Undoing,
): Promise<NetworkWatch> {
  const taps = vms.flatMap(({ taps }) =>
    taps.flatMap(({ nic, fds: [fd] }) => (fd === undefined ? [] : [{ name: nic.tap, fd }])),
  );
  const watch = await NetworkWatch.start({ taps, external, database, signal });
  undo.push(() => watch.close());
  return watch;
}

function armEdge(
  { externalPorts: names, externalFrames: frames, frameBufferBytes: ringBytes }: AgentParams<'arm'>,
  { links }: HostSurroundings,
  { interfaces }: NetworkWatch,
  undo: (() => unknown)[],
): EdgePorts | null {
  const edge = edgeOf({ names, frames, ringBytes }, links, interfaces);
  undo.push(() => edge?.close());
  return edge;
}

const describeUndeclared = (port: string): string =>
  `port ${port} belongs to no VM of the experiment and is not declared external: what comes in from it is in flight like any other frame`;

async function openVms(
  processes: readonly QemuProcess[],
  surroundings: HostSurroundings,
  { snapshot, method }: AgentParams<'arm'>,
  { signal, undo }: Undoing,
): Promise<ControlledVm[]> {
  if (processes.length === 0) throw new StaghornError('not-found', 'no QEMU runs on this host');
  const wish = snapshot === null ? 'none' : method;
  const vms = await allOf(
    processes.map(async (process) => {
      const vm = await ControlledVm.open(process, surroundings, signal, { wish });
      undo.push(() => vm.close());
      return vm;
    }),
  );
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
  await requireSpace(chosen, store);
  return chosen;
}

async function prepareDirectory(
  snapshot: string,
  chosen: readonly ChosenMethod[],
  { maxBytesPerSecond }: AgentParams<'arm'>['ram'],
  { store, disks }: ArmTools,
  undo: (() => unknown)[],
): Promise<PartialSnapshot> {
  const directory = await store.create(snapshot);
  undo.push(() => directory.discard());
  const place = { directory: directory.path, maxBytesPerSecond };
  await allOf(chosen.map(({ vm, method }) => vm.prepareSave(method, place, disks)));
  return directory;
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

async function requireSpace(chosen: readonly ChosenMethod[], store: SnapshotStore): Promise<void> {
  const ramBytes = chosen.reduce(
    (sum, { vm: { layout }, method }) => sum + ramBytesOf(layout) * saveMethods[method].copiesOnDisk,
    0,
  );
  const writableDisks = chosen.reduce((sum, { vm: { disks } }) => sum + disks.writable.length, 0);
  const neededBytes = Math.ceil(ramBytes * (1 + besideRam)) + writableDisks * overlaySpareBytes + spareBytes;
  const freeBytes = await store.freeBytes();
  if (freeBytes >= neededBytes) return;
  const mebibytes = (bytes: number) => `${Math.ceil(bytes / 1024 / 1024)} MiB`;
  throw new StaghornError(
    'disk-full',
    `the snapshot may need ${mebibytes(neededBytes)} and ${mebibytes(freeBytes)} are free in the snapshot store`,
  );
}

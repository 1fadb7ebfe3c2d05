import { readFile } from 'node:fs/promises';
import { StaghornError } from '../errors/index.ts';
import { hostInit, runInHost } from './host.ts';
import { serialLog, vmFiles } from './paths.ts';
import { identify, processesIn, type ProcessId } from './processes.ts';
import { allRecords, isComingUp, readRecord, type LabRecord } from './record.ts';
import type { GuestReport } from './report.ts';
import { readReports, serialOffset } from './serial-log.ts';
import { inPlace, type ShapedDevice } from './shaped-devices.ts';

/** Enough of a serial log's end to hold a whole report. */
const TAIL_BYTES = 16_384;

export interface VmStatus {
  readonly name: string;
  readonly host: string;
  /** QEMU's process as the machine counts; null if it does not run. */
  readonly pid: number | null;
  readonly lastReport: GuestReport | null;
}

/** A link or NIC with a shape, and whether the kernel really has it. */
export interface ShapedStatus extends ShapedDevice {
  readonly inPlace: boolean;
}

export interface LabStatus {
  readonly name: string;
  /** 'broken': an `up` was killed half way, or something of it has ended since. */
  readonly state: 'coming-up' | 'up' | 'broken';
  readonly hosts: readonly { readonly name: string; readonly address: string; readonly pid: number | null }[];
  readonly vms: readonly VmStatus[];
  readonly shaped: readonly ShapedStatus[];
}

/**
 * The QEMU that listens at this VM's socket, among the processes of its host's namespace. A fork that holds RAM for a
 * snapshot has the same command line: the VM is the one that started first.
 */
async function qemuOf(vm: string, pids: readonly number[]): Promise<number | null> {
  const found: ProcessId[] = [];
  for (const pid of pids) {
    const argv = (await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')).split('\0');
    if (!argv.includes('-qmp') || !argv.some((word) => word.startsWith(`unix:${vmFiles(vm).qmp},`))) continue;
    const id = await identify(pid);
    if (id !== undefined) found.push(id);
  }
  const [first] = found.sort((a, b) => Number(a.startTicks) - Number(b.startTicks));
  return first?.pid ?? null;
}

async function vmStatuses(record: LabRecord): Promise<VmStatus[]> {
  const inside = new Map<string, number[]>();
  for (const { name, namespace } of record.hosts)
    inside.set(name, await processesIn(`/run/netns/${namespace}`).catch(() => []));
  return Promise.all(
    record.vms.map(async ({ name, host }) => {
      const log = serialLog(record.name, host, name);
      const from = Math.max(0, (await serialOffset(log)) - TAIL_BYTES);
      const reports = await readReports(log, [{ from }]);
      return {
        name,
        host,
        pid: await qemuOf(name, inside.get(host) ?? []),
        lastReport: reports.at(-1) ?? null,
      };
    }),
  );
}

async function shapedStatuses({ name, shaped }: LabRecord): Promise<ShapedStatus[]> {
  const hosts = [...new Set(shaped.map(({ host }) => host))];
  const all = hosts.map(async (host) => {
    const devices = shaped.filter((device) => device.host === host);
    const json = await runInHost({ lab: name, host }, ['tc', '-json', 'qdisc', 'show']).catch(() => '');
    const there = inPlace(devices, json);
    return devices.map((device, index) => ({ ...device, inPlace: there[index]! }));
  });
  return (await Promise.all(all)).flat();
}

/** @throws StaghornError 'not-found' */
export async function labStatus(name: string): Promise<LabStatus> {
  const record = await readRecord(name);
  if (record === undefined) throw new StaghornError('not-found', `there is no lab "${name}"`);
  const hosts = await Promise.all(
    record.hosts.map(async (host) => ({
      name: host.name,
      address: host.managementAddress.split('/', 1)[0]!,
      pid: (await hostInit(name, host.name))?.pid ?? null,
    })),
  );
  const [vms, shaped] = await Promise.all([vmStatuses(record), shapedStatuses(record)]);
  const whole = record.phase === 'up' && [...hosts, ...vms].every(({ pid }) => pid !== null);
  const state = whole ? 'up' : (await isComingUp(record)) ? 'coming-up' : 'broken';
  return { name, state, hosts, vms, shaped };
}

/** Names of all labs on this machine. */
export async function labNames(): Promise<string[]> {
  return (await allRecords()).map(({ name }) => name);
}

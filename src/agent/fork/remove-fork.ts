import { deleteLink, readLinks } from '../../native/netlink.ts';
import { isErrno } from '../../native/rtnetlink.ts';
import { withSwitches } from '../../network/switches/ports.ts';
import { applyOperations } from '../../network/switches/rebuild.ts';
import { openVSwitch, uuidsOf, type OvsdbOperation } from '../../ovsdb/index.ts';
import { findQemuProcesses } from '../../vmm/qemu-process.ts';
import { terminateVm } from '../../vmm/terminate.ts';
import { readForkRecord, removeForkDirectory } from './fork-directory.ts';
import { isVmOfFork } from './names.ts';

/**
 * Takes everything of a fork away from this host: VMs, bridges with their tunnels, taps, files. Its record goes last,
 * so that what was cut short can be done again. @returns the VMs that ran
 */
export async function removeFork(directory: string, signal: AbortSignal): Promise<string[]> {
  const record = await readForkRecord(directory);
  if (record === null) {
    // Killed before the record was written: nothing else was made.
    await removeForkDirectory(directory);
    return [];
  }
  const names = new Set(record.vms);
  const vms = (await findQemuProcesses()).filter((vm) => names.has(vm.name) && isVmOfFork(vm));
  await Promise.all(vms.map((vm) => terminateVm(vm)));
  await deleteBridges(record.bridges, signal);
  const present = new Set(readLinks().map(({ name }) => name));
  for (const tap of record.taps) if (present.has(tap)) deleteTap(tap);
  await removeForkDirectory(directory);
  return vms.map(({ name }) => name);
}

/** With a bridge its ports go: nothing refers to their rows any more (ovs-vswitchd.conf.db(5)). */
function deleteBridges(names: readonly string[], signal: AbortSignal): Promise<void> {
  if (names.length === 0) return Promise.resolve();
  return withSwitches(undefined, signal, async (client) => {
    const queries = names.map((name): OvsdbOperation => {
      return { op: 'select', table: 'Bridge', where: [['name', '==', name]], columns: ['_uuid'] };
    });
    const found = await client.transact(openVSwitch, queries, { signal });
    const rows = found.flatMap(({ rows = [] }) => rows.flatMap((row) => uuidsOf(row['_uuid'])));
    const operations = rows.map((row): OvsdbOperation => {
      const mutations = [['bridges', 'delete', ['uuid', row]]] as const;
      return { op: 'mutate', table: 'Open_vSwitch', where: [], mutations: [...mutations] };
    });
    if (operations.length > 0) await applyOperations(client, operations, signal);
  });
}

function deleteTap(name: string): void {
  try {
    deleteLink(name);
  } catch (error) {
    if (!isErrno(error, 'ENODEV')) throw error;
  }
}

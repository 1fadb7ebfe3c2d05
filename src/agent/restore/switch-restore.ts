import { readFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { join } from 'node:path';

import { messageOf } from '../../errors/index.ts';
import { readLinks, setLink } from '../../native/netlink.ts';
import { teachMacTable, type MacLesson } from '../../network/switches/mac-teaching.ts';
import { makeQdiscs, readOwnQdiscs } from '../../network/switches/qdiscs.ts';
import { readBridges, selectBridges, type BridgeConfig } from '../../network/switches/config.ts';
import {
  isAsNew,
  readOpenFlow,
  sameOpenFlow,
  writeOpenFlow,
  type OpenFlowTables,
} from '../../network/switches/openflow.ts';
import type { FlowMemory } from '../../network/switches/flow-memory.ts';
import { planSwitches, type SwitchPlan } from '../../network/switches/plan.ts';
import { withSwitches } from '../../network/switches/ports.ts';
import { applyOperations, rebuildOperations } from '../../network/switches/rebuild.ts';
import type { StoredBridge, StoredMac, StoredSwitches } from '../../store/stored-switches.ts';

export interface RestoreSwitchesOptions {
  /** Of the snapshot. */
  readonly directory: string;
  /** Taps that were gone and have been made again. */
  readonly madeTaps: ReadonlySet<string>;
  readonly flows: FlowMemory;
  readonly signal: AbortSignal;
}

/**
 * Makes what is gone of a host's switches again: bridges, ports with VLAN and QoS, flows, queueing disciplines. What
 * is there is left as it is. @returns what is not as it was, in words
 * @throws StaghornError 'host-unfit', 'network-unfit'
 */
export async function restoreSwitches(
  { bridges, qdiscs }: StoredSwitches,
  options: RestoreSwitchesOptions,
): Promise<string[]> {
  const { madeTaps, signal } = options;
  const plan = await rebuild(bridges, signal);
  const madeBridges = new Set(plan.bridges.map(({ name }) => name));
  for (const { name, localUp } of plan.bridges) if (localUp) bringUp(name);
  const openFlow = await Promise.all(
    bridges.map((bridge) => restoreOpenFlow(bridge, madeBridges.has(bridge.name), options)),
  );
  // Open vSwitch removes the qdisc of a device that becomes a port, unless the port's QoS is linux-noop: so they
  // come behind the ports (ovs-vswitchd.conf.db(5)).
  const plugged = [...plan.bridges.flatMap(({ ports }) => ports), ...plan.ports.map(({ port }) => port)];
  const fresh = new Set([...madeTaps, ...plugged.flatMap((port) => port.interfaces.map(({ name }) => name))]);
  return [...plan.warnings, ...openFlow.flat(), ...restoreQdiscs(qdiscs, fresh)];
}

function rebuild(bridges: readonly StoredBridge[], signal: AbortSignal): Promise<SwitchPlan> {
  return withSwitches(undefined, signal, async (client) => {
    const present = await selectBridges(client, signal);
    const plan = planSwitches(bridges, present, new Set(readLinks().map(({ name }) => name)));
    const known = present.flatMap(({ ports }) => ports.flatMap(({ qos }) => qos?.uuid ?? []));
    const operations = rebuildOperations(plan, new Set(known));
    if (operations.length > 0) await applyOperations(client, operations, signal);
    return plan;
  });
}

function bringUp(device: string): void {
  const link = readLinks().find(({ name }) => name === device);
  if (link !== undefined) setLink({ ifindex: link.ifindex, up: true });
}

async function restoreOpenFlow(
  bridge: StoredBridge,
  isMade: boolean,
  { directory, flows: memory, signal }: RestoreSwitchesOptions,
): Promise<string[]> {
  const { name, openFlow } = bridge;
  if (openFlow === null) return [];
  const known = await memory.look(directory, name, signal);
  if (known.same && !isMade) return [];
  const text = (what: keyof OpenFlowTables) => readFile(join(directory, openFlow[what].file), 'utf8');
  const [flows, groups, meters] = await Promise.all([text('flows'), text('groups'), text('meters')]);
  const stored = { flows, groups, meters };
  if (isMade) {
    // Every run of ovs-ofctl is a process, and a new bridge is known to have no groups and no meters.
    if (!(known.asNew && isAsNew(stored) && flows !== '')) await writeOpenFlow(name, stored, signal);
    return [];
  }
  const found = await readOpenFlow(name, signal);
  if (sameOpenFlow(stored, found)) {
    known.remember();
    return [];
  }
  if (!isAsNew(found))
    return [
      `bridge ${name}: its flows, groups or meters are not those of the snapshot; they are left as they are`,
    ];
  await writeOpenFlow(name, stored, signal);
  return [`bridge ${name} had lost its flows; those of the snapshot were put back`];
}

function restoreQdiscs(stored: StoredSwitches['qdiscs'], fresh: ReadonlySet<string>): string[] {
  const ifindexes = new Map(readLinks().map(({ name, ifindex }) => [name, ifindex]));
  return stored.flatMap((own) => {
    const ifindex = ifindexes.get(own.tap);
    if (ifindex === undefined) return [];
    if (fresh.has(own.tap)) return makeQdiscs(own, ifindex);
    return isDeepStrictEqual(readOwnQdiscs(own.tap, ifindex), own)
      ? []
      : [
          `the queueing disciplines of tap ${own.tap} are not those of the snapshot; they are left as they are`,
        ];
  });
}

/**
 * Has the switches know what they had learnt at the cut, and nothing of the time line that was given up.
 * @returns what they do not learn, in words
 */
export async function restoreMacTables(
  switches: StoredSwitches | null,
  signal: AbortSignal,
): Promise<string[]> {
  const stored = (switches?.bridges ?? []).filter(({ macTable }) => macTable !== null);
  if (stored.length === 0) return [];
  const present = new Map((await readBridges(signal)).map((bridge) => [bridge.name, bridge]));
  const results = await Promise.all(
    stored.map(async ({ name, macTable }) => {
      const bridge = present.get(name);
      if (bridge === undefined) return [];
      try {
        return await teachMacTable(
          name,
          (macTable ?? []).flatMap((entry) => lessonOf(bridge, entry)),
          signal,
        );
      } catch (error) {
        signal.throwIfAborted();
        return [`bridge ${name}: its MAC table is not that of the snapshot: ${messageOf(error)}`];
      }
    }),
  );
  return results.flat();
}

function lessonOf(bridge: BridgeConfig, entry: StoredMac): MacLesson[] {
  const port = bridge.ports.find(({ interfaces }) => interfaces.some(({ name }) => name === entry.interface));
  const ofport = port?.interfaces.find(({ name }) => name === entry.interface)?.ofport;
  if (port === undefined || ofport === undefined || ofport === null) return [];
  const { tag } = port.columns;
  return [
    {
      ...entry,
      port: entry.interface === bridge.name ? 'LOCAL' : ofport,
      untaggedVlan: typeof tag === 'number' ? tag : 0,
    },
  ];
}

import { numbersOf, stringsOf, uuidsOf } from '../../ovsdb/index.ts';
import type { OvsdbMonitorRequest, OvsdbRow, OvsdbTableUpdates } from '../../ovsdb/index.ts';

/** What is watched of Open vSwitch's database: what decides where a frame goes (ovs-vswitchd.conf.db(5)). */
export const watchedColumns = {
  Bridge: { columns: ['name', 'ports', 'datapath_type'] },
  Port: { columns: ['name', 'interfaces', 'tag', 'trunks', 'vlan_mode', 'qos'] },
  Interface: { columns: ['name', 'type', 'options', 'ofport', 'ingress_policing_rate'] },
  QoS: { columns: ['type', 'other_config', 'queues'] },
} as const satisfies Record<string, OvsdbMonitorRequest>;

type Table = keyof typeof watchedColumns;

export interface SwitchInterface {
  readonly bridge: string;
  /** '' is an ordinary device; else 'internal', 'patch', 'vxlan', … */
  readonly type: string;
  /** The switch has opened the device. */
  readonly open: boolean;
  /** VLANs, QoS and options, to be compared. */
  readonly settings: string;
}

/** Interfaces by name. */
export type SwitchInterfaces = ReadonlyMap<string, SwitchInterface>;

/** Rows of the watched tables as the updates of a monitor tell of them (RFC 7047, section 4.1.6), without a connection. */
export class SwitchTables {
  readonly #rows: Readonly<Record<Table, Map<string, OvsdbRow>>> = {
    Bridge: new Map(),
    Port: new Map(),
    Interface: new Map(),
    QoS: new Map(),
  };

  apply(updates: OvsdbTableUpdates): void {
    for (const [table, rows] of Object.entries(this.#rows)) {
      for (const [uuid, { new: row }] of Object.entries(updates[table] ?? {})) {
        if (row === undefined) rows.delete(uuid);
        else rows.set(uuid, row);
      }
    }
  }

  interfaces(): SwitchInterfaces {
    const { Bridge, Port, Interface } = this.#rows;
    const found = new Map<string, SwitchInterface>();
    for (const bridge of Bridge.values()) {
      for (const port of referred(bridge['ports'], Port)) {
        for (const row of referred(port['interfaces'], Interface)) {
          found.set(text(row['name']), this.#describe(text(bridge['name']), port, row));
        }
      }
    }
    return found;
  }

  #describe(bridge: string, port: OvsdbRow, row: OvsdbRow): SwitchInterface {
    const { tag, trunks, vlan_mode } = port;
    const qos = referred(port['qos'], this.#rows.QoS);
    const { type, options, ingress_policing_rate } = row;
    return {
      bridge,
      type: text(type),
      open: (numbersOf(row['ofport'])[0] ?? -1) > 0,
      settings: JSON.stringify([tag, trunks, vlan_mode, qos, type, options, ingress_policing_rate]),
    };
  }
}

const text = (value: OvsdbRow[string] | undefined): string => stringsOf(value)[0] ?? '';

function referred(references: OvsdbRow[string] | undefined, rows: ReadonlyMap<string, OvsdbRow>): OvsdbRow[] {
  return uuidsOf(references)
    .map((uuid) => rows.get(uuid))
    .filter((row) => row !== undefined);
}

/** What has changed on those bridges, in words, by port. */
export function changesBetween(
  before: SwitchInterfaces,
  after: SwitchInterfaces,
  bridges: ReadonlySet<string>,
): Map<string, string> {
  const changes = new Map<string, string>();
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const [was, is] = [before.get(name), after.get(name)];
    if (!bridges.has(was?.bridge ?? '') && !bridges.has(is?.bridge ?? '')) continue;
    const change = changeOf(was, is);
    if (change !== null) changes.set(name, `${name} ${change}`);
  }
  return changes;
}

function changeOf(was: SwitchInterface | undefined, is: SwitchInterface | undefined): string | null {
  if (was === undefined) return `was added to ${is?.bridge ?? 'a bridge'}`;
  if (is === undefined) return `was removed from ${was.bridge}`;
  if (was.bridge !== is.bridge) return `was moved from ${was.bridge} to ${is.bridge}`;
  if (was.settings !== is.settings) return 'was given other VLANs, QoS or options';
  if (was.open && !is.open) return 'has lost its device';
  return null;
}

export interface ExperimentPorts {
  /** Taps of the experiment's VMs. */
  readonly taps: ReadonlySet<string>;
  /** Interfaces declared external. */
  readonly external: ReadonlySet<string>;
}

/** The bridges that the experiment's ports are on. */
export function bridgesOf(interfaces: SwitchInterfaces, { taps, external }: ExperimentPorts): Set<string> {
  return new Set(
    [...interfaces].flatMap(([name, { bridge }]) => (taps.has(name) || external.has(name) ? [bridge] : [])),
  );
}

/** Ports on the experiment's bridges that nobody has told of: ordinary devices that are neither a VM's nor external. */
export function undeclaredPorts(interfaces: SwitchInterfaces, ports: ExperimentPorts): string[] {
  const bridges = bridgesOf(interfaces, ports);
  return [...interfaces]
    .filter(([name, { bridge, type }]) => {
      const ordinary = type === '' || type === 'system';
      return ordinary && bridges.has(bridge) && !ports.taps.has(name) && !ports.external.has(name);
    })
    .map(([name]) => name)
    .sort();
}

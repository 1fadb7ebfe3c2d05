import { openVSwitch, stringsOf, numbersOf, uuidsOf, fromMap } from '../../ovsdb/index.ts';
import type { OvsdbAtom, OvsdbClient, OvsdbOperation, OvsdbRow, OvsdbValue } from '../../ovsdb/index.ts';
import type { StoredColumns, StoredInterface, StoredPort, StoredQos } from '../../store/stored-switches.ts';
import { withSwitches } from './ports.ts';

/** A bridge as Open vSwitch's database has it: everything that it was set to, and nothing that it reports. */
export interface BridgeConfig {
  readonly name: string;
  readonly columns: StoredColumns;
  readonly ports: readonly StoredPort[];
  /** MAC address of the bridge's own interface. */
  readonly localMac: string | null;
  /** Targets; "connected" or not. */
  readonly controllers: readonly string[];
  /** Names. */
  readonly mirrors: readonly string[];
  /** What else hangs on the bridge and is not kept: "netflow", "sflow", "ipfix", "auto_attach". */
  readonly extras: readonly string[];
}

/** The configuration columns, but for references to other rows (ovs-vswitchd.conf.db(5)). */
const kept = {
  Bridge: [
    ...['datapath_type', 'fail_mode', 'protocols', 'other_config', 'external_ids', 'flood_vlans'],
    ...['mcast_snooping_enable', 'rstp_enable', 'stp_enable'],
  ],
  Port: [
    ...['vlan_mode', 'tag', 'trunks', 'cvlans', 'other_config', 'external_ids', 'protected', 'lacp'],
    ...['bond_mode', 'bond_updelay', 'bond_downdelay', 'bond_fake_iface', 'fake_bridge'],
  ],
  Interface: [
    ...['type', 'options', 'mac', 'mtu_request', 'ofport_request', 'other_config', 'external_ids'],
    ...['ingress_policing_rate', 'ingress_policing_burst', 'ingress_policing_kpkts_rate'],
    ...['ingress_policing_kpkts_burst', 'bfd', 'cfm_mpid', 'lldp'],
  ],
  QoS: ['type', 'other_config', 'external_ids'],
  Queue: ['dscp', 'other_config', 'external_ids'],
} as const;

const extras = ['netflow', 'sflow', 'ipfix', 'auto_attach'] as const;
const tables = ['Bridge', 'Port', 'Interface', 'QoS', 'Queue', 'Controller', 'Mirror'] as const;
type Table = (typeof tables)[number];
type Rows = Readonly<Record<Table, ReadonlyMap<string, OvsdbRow>>>;

/** All bridges of the host. @throws StaghornError 'host-unfit' */
export function readBridges(signal?: AbortSignal): Promise<BridgeConfig[]> {
  return withSwitches(undefined, signal, (client) => selectBridges(client, signal));
}

/** The same over a connection that is there already. */
export async function selectBridges(client: OvsdbClient, signal?: AbortSignal): Promise<BridgeConfig[]> {
  const operations = tables.map((table): OvsdbOperation => ({ op: 'select', table, where: [] }));
  const results = await client.transact(openVSwitch, operations, { signal });
  const rows = Object.fromEntries(
    tables.map((table, place) => [
      table,
      new Map((results[place]?.rows ?? []).map((row) => [uuidsOf(row['_uuid'])[0]!, row])),
    ]),
  ) as unknown as Rows;
  return [...rows.Bridge.values()].map((row) => bridgeOf(row, rows));
}

/** Those that these interfaces are plugged into, and what is joined to them by patch ports. */
export function bridgesAround(all: readonly BridgeConfig[], interfaces: ReadonlySet<string>): BridgeConfig[] {
  const found = new Set(all.filter((bridge) => namesOf(bridge).some((name) => interfaces.has(name))));
  // A set that grows is gone through to its end.
  for (const bridge of found) {
    const peers = new Set(bridge.ports.flatMap((port) => port.interfaces.flatMap(peerOf)));
    for (const other of all) if (namesOf(other).some((name) => peers.has(name))) found.add(other);
  }
  return all.filter((bridge) => found.has(bridge));
}

const namesOf = ({ ports }: BridgeConfig) =>
  ports.flatMap(({ interfaces }) => interfaces.map(({ name }) => name));

function peerOf({ type, columns }: StoredInterface): string[] {
  if (type !== 'patch' || columns['options'] === undefined) return [];
  const peer = fromMap(columns['options'] as OvsdbValue).get('peer');
  return typeof peer === 'string' ? [peer] : [];
}

function bridgeOf(row: OvsdbRow, rows: Rows): BridgeConfig {
  const name = stringsOf(row['name'])[0]!;
  const local = [...rows.Interface.values()].find((iface) => stringsOf(iface['name'])[0] === name);
  return {
    name,
    columns: keptOf('Bridge', row),
    ports: referred(row['ports'], rows.Port).map((port) => portOf(port, rows)),
    localMac: (local === undefined ? undefined : stringsOf(local['mac_in_use'])[0]) ?? null,
    controllers: referred(row['controller'], rows.Controller).map(
      (controller) => stringsOf(controller['target'])[0]!,
    ),
    mirrors: referred(row['mirrors'], rows.Mirror).map((mirror) => stringsOf(mirror['name'])[0]!),
    extras: extras.filter((column) => row[column] !== undefined && uuidsOf(row[column]).length > 0),
  };
}

function portOf(row: OvsdbRow, rows: Rows): StoredPort {
  const [qos] = uuidsOf(row['qos']);
  const interfaces = referred(row['interfaces'], rows.Interface).map(interfaceOf);
  return {
    name: stringsOf(row['name'])[0]!,
    columns: keptOf('Port', row),
    interfaces,
    qos: qos === undefined ? null : qosOf(qos, rows),
  };
}

function interfaceOf(row: OvsdbRow): StoredInterface {
  const [ofport] = numbersOf(row['ofport']);
  return {
    name: stringsOf(row['name'])[0]!,
    type: stringsOf(row['type'])[0] || 'system',
    ofport: ofport === undefined || ofport < 0 ? null : ofport,
    columns: keptOf('Interface', row),
  };
}

function qosOf(uuid: string, rows: Rows): StoredQos | null {
  const row = rows.QoS.get(uuid);
  if (row === undefined) return null;
  const queues = [...fromMap(row['queues'])].map(([id, reference]) => {
    const queue = rows.Queue.get(uuidsOf(reference)[0]!);
    return { id: Number(id), columns: queue === undefined ? {} : keptOf('Queue', queue) };
  });
  return { uuid, type: stringsOf(row['type'])[0]!, columns: keptOf('QoS', row), queues };
}

function referred(references: OvsdbValue | undefined, rows: ReadonlyMap<string, OvsdbRow>): OvsdbRow[] {
  if (references === undefined) return [];
  return uuidsOf(references)
    .map((uuid) => rows.get(uuid))
    .filter((row) => row !== undefined);
}

/** A column that is at its default, or that this version of Open vSwitch does not have, is left out. */
function keptOf(table: keyof typeof kept, row: OvsdbRow): StoredColumns {
  const entries = kept[table].flatMap((column) => {
    const value = row[column];
    return value === undefined || isDefault(value) ? [] : [[column, value] as const];
  });
  return Object.fromEntries(entries) as unknown as StoredColumns;
}

function isDefault(value: OvsdbValue): boolean {
  if (!Array.isArray(value)) return ['', false, 0].includes(value as string | boolean | number);
  const [tag, content] = value as readonly [string, readonly OvsdbAtom[] | string];
  return (tag === 'set' || tag === 'map') && content.length === 0;
}

import { OvsdbError } from './errors.ts';
import type { OvsdbOperation, OvsdbResult } from './operations.ts';
import { fromOptional, numbersOf, stringMapOf, stringsOf, uuidsOf } from './values.ts';
import type { OvsdbRow, OvsdbValue } from './values.ts';
import type { WaitOptions } from './waiter.ts';

/** The database's name; its tables are described in ovs-vswitchd.conf.db(5). */
export const openVSwitch = 'Open_vSwitch';

export interface OvsInterface {
  readonly uuid: string;
  /** The network device's name on the host. */
  readonly name: string;
  /** 'system' (written "" in the database), 'internal', 'patch', 'vxlan', 'geneve', … */
  readonly type: string;
  readonly options: Readonly<Record<string, string>>;
  /** The OpenFlow port; −1 if the switch could not add it, undefined if it has not tried yet. */
  readonly ofport: number | undefined;
  readonly externalIds: Readonly<Record<string, string>>;
  readonly macInUse: string | undefined;
  readonly adminState: string | undefined;
  readonly linkState: string | undefined;
}

export interface OvsPort {
  readonly uuid: string;
  readonly name: string;
  readonly interfaces: readonly OvsInterface[];
  readonly tag: number | undefined;
  readonly trunks: readonly number[];
  readonly vlanMode: string | undefined;
  /** The UUID of a row of QoS. */
  readonly qos: string | undefined;
  readonly externalIds: Readonly<Record<string, string>>;
}

export interface OvsBridge {
  readonly uuid: string;
  readonly name: string;
  /** 'system' (written "" in the database) or 'netdev'. */
  readonly datapathType: string;
  readonly ports: readonly OvsPort[];
  readonly externalIds: Readonly<Record<string, string>>;
}

/** What `readSwitches` needs of a client. */
export interface OvsdbTransactor {
  transact(
    database: string,
    operations: readonly OvsdbOperation[],
    options?: WaitOptions,
  ): Promise<OvsdbResult[]>;
}

const columns = {
  Bridge: ['_uuid', 'name', 'ports', 'datapath_type', 'external_ids'],
  Port: ['_uuid', 'name', 'interfaces', 'tag', 'trunks', 'vlan_mode', 'qos', 'external_ids'],
  Interface: [
    ...['_uuid', 'name', 'type', 'options', 'ofport', 'external_ids'],
    ...['mac_in_use', 'admin_state', 'link_state'],
  ],
} as const;

/**
 * All bridges with their ports and the ports' interfaces, read in one transaction and sorted by name.
 * @throws OvsdbError as `transact`; 'protocol' if the rows are not as the schema says.
 */
export async function readSwitches(client: OvsdbTransactor, options: WaitOptions = {}): Promise<OvsBridge[]> {
  const select = (table: keyof typeof columns): OvsdbOperation => ({
    op: 'select',
    table,
    where: [],
    columns: columns[table],
  });
  const operations = [select('Interface'), select('Port'), select('Bridge')];
  const results = await client.transact(openVSwitch, operations, options);
  const [interfaceRows, portRows, bridgeRows] = results.map(({ rows }) => rows ?? []);
  const interfaces = byUuid((interfaceRows ?? []).map(interfaceOf));
  const ports = byUuid((portRows ?? []).map((row) => portOf(row, interfaces)));
  return (bridgeRows ?? []).map((row) => bridgeOf(row, ports)).sort(byName);
}

function interfaceOf(row: OvsdbRow): OvsInterface {
  return {
    uuid: single(row['_uuid'], uuidsOf),
    name: single(row['name'], stringsOf),
    type: single(row['type'], stringsOf) || 'system',
    options: stringMapOf(row['options']),
    ofport: optional(row['ofport'], numbersOf),
    externalIds: stringMapOf(row['external_ids']),
    macInUse: optional(row['mac_in_use'], stringsOf),
    adminState: optional(row['admin_state'], stringsOf),
    linkState: optional(row['link_state'], stringsOf),
  };
}

function portOf(row: OvsdbRow, interfaces: ReadonlyMap<string, OvsInterface>): OvsPort {
  return {
    uuid: single(row['_uuid'], uuidsOf),
    name: single(row['name'], stringsOf),
    interfaces: resolve(row['interfaces'], interfaces),
    tag: optional(row['tag'], numbersOf),
    trunks: numbersOf(row['trunks']),
    vlanMode: optional(row['vlan_mode'], stringsOf),
    qos: optional(row['qos'], uuidsOf),
    externalIds: stringMapOf(row['external_ids']),
  };
}

function bridgeOf(row: OvsdbRow, ports: ReadonlyMap<string, OvsPort>): OvsBridge {
  return {
    uuid: single(row['_uuid'], uuidsOf),
    name: single(row['name'], stringsOf),
    datapathType: single(row['datapath_type'], stringsOf) || 'system',
    ports: resolve(row['ports'], ports),
    externalIds: stringMapOf(row['external_ids']),
  };
}

function byUuid<T extends { readonly uuid: string }>(rows: readonly T[]): Map<string, T> {
  return new Map(rows.map((row) => [row.uuid, row]));
}

/** The rows that a column refers to, sorted by name. */
function resolve<T extends { readonly name: string }>(
  references: OvsdbValue | undefined,
  rows: ReadonlyMap<string, T>,
): T[] {
  const found = uuidsOf(references).map((id) => {
    const row = rows.get(id);
    if (row === undefined) throw new OvsdbError('protocol', `no row has the UUID ${id}`);
    return row;
  });
  return found.sort(byName);
}

function byName(left: { readonly name: string }, right: { readonly name: string }): number {
  return left.name < right.name ? -1 : Number(left.name > right.name);
}

function optional<T>(
  value: OvsdbValue | undefined,
  convert: (value: OvsdbValue | undefined) => T[],
): T | undefined {
  return fromOptional(value) === undefined ? undefined : convert(value)[0];
}

function single<T>(value: OvsdbValue | undefined, convert: (value: OvsdbValue | undefined) => T[]): T {
  const item = optional(value, convert);
  if (item === undefined) throw new OvsdbError('protocol', 'a column that holds one value holds none');
  return item;
}

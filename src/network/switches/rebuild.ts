import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../../errors/index.ts';
import { fromMap, namedUuid, numbersOf, openVSwitch, toMap, toSet, uuid } from '../../ovsdb/index.ts';
import type { OvsdbAtom, OvsdbClient, OvsdbOperation, OvsdbRow, OvsdbValue } from '../../ovsdb/index.ts';
import type { StoredBridge, StoredColumns, StoredPort, StoredQos } from '../../store/stored-switches.ts';
import type { SwitchPlan } from './plan.ts';

const appliedPollMs = 2;
const appliedBoundMs = 20_000;

/** Open vSwitch gives the bridge's own interface this number, and no other may have it (OFPP_LOCAL). */
const LOCAL_PORT = 65_534;

/**
 * The rows that a plan adds to Open vSwitch's database, as one transaction.
 * @param knownQos rows of QoS that are there: a port that comes back shares its row again
 */
export function rebuildOperations(
  { bridges, ports }: Pick<SwitchPlan, 'bridges' | 'ports'>,
  knownQos: ReadonlySet<string>,
): OvsdbOperation[] {
  const operations: OvsdbOperation[] = [];
  const qosRows = new QosRows(operations, knownQos);
  let last = 0;
  const insert = (table: string, row: OvsdbRow) => {
    const name = `row${(last += 1)}`;
    operations.push({ op: 'insert', table, row, 'uuid-name': name });
    return namedUuid(name);
  };
  const insertPort = ({ name, columns, interfaces, qos }: StoredPort) => {
    const references = interfaces.map((iface) =>
      insert('Interface', { name: iface.name, ...values(iface.columns), ...ofportWish(iface.ofport) }),
    );
    const shaped: OvsdbRow = qos === null ? {} : { qos: qosRows.referenceTo(qos) };
    return insert('Port', { name, ...values(columns), interfaces: toSet(references), ...shaped });
  };
  for (const bridge of bridges) {
    const own = bridge.ports.map(insertPort);
    const row = insert('Bridge', { name: bridge.name, ...bridgeColumns(bridge), ports: toSet(own) });
    operations.push(mutation('Open_vSwitch', [], 'bridges', row));
  }
  for (const { bridge, port } of ports)
    operations.push(mutation('Bridge', [['name', '==', bridge]], 'ports', insertPort(port)));
  return operations;
}

/** Inserts rows of QoS, each once: ports may share one. */
class QosRows {
  readonly #operations: OvsdbOperation[];
  readonly #known: Map<string, OvsdbAtom>;

  constructor(operations: OvsdbOperation[], known: ReadonlySet<string>) {
    this.#operations = operations;
    this.#known = new Map([...known].map((id) => [id, uuid(id)]));
  }

  referenceTo(qos: StoredQos): OvsdbAtom {
    const known = this.#known.get(qos.uuid);
    if (known !== undefined) return known;
    const name = `qos${this.#known.size}`;
    const queues = qos.queues.map(({ id, columns }): [number, OvsdbAtom] => {
      const queue = `${name}queue${id}`;
      this.#operations.push({ op: 'insert', table: 'Queue', row: values(columns), 'uuid-name': queue });
      return [id, namedUuid(queue)];
    });
    const row = { ...values(qos.columns), type: qos.type, queues: toMap(queues) };
    this.#operations.push({ op: 'insert', table: 'QoS', row, 'uuid-name': name });
    this.#known.set(qos.uuid, namedUuid(name));
    return namedUuid(name);
  }
}

/** Kept columns are OVSDB values by construction. */
const values = (columns: StoredColumns) => columns as unknown as OvsdbRow;

/** Flows name ports by number. */
const ofportWish = (ofport: number | null): OvsdbRow =>
  ofport === null || ofport === LOCAL_PORT ? {} : { ofport_request: ofport };

/** Left alone, a bridge takes a MAC address of its ports, or a random one. */
function bridgeColumns({ columns, localMac }: StoredBridge): OvsdbRow {
  const row = values(columns);
  const settings = row['other_config'] === undefined ? new Map() : fromMap(row['other_config']);
  if (localMac === null || settings.has('hwaddr')) return row;
  return { ...row, other_config: toMap([...settings, ['hwaddr', localMac]]) };
}

function mutation(
  table: string,
  where: readonly [string, '==', string][],
  column: string,
  value: OvsdbValue,
): OvsdbOperation {
  return { op: 'mutate', table, where, mutations: [[column, 'insert', value]] };
}

/**
 * Carries the operations out and waits until the switch has done what they say, as ovs-vsctl does: it sets cur_cfg
 * to the next_cfg that it has taken up (ovs-vswitchd.conf.db(5)).
 * @throws StaghornError 'deadline-exceeded'; OvsdbError
 */
export async function applyOperations(
  client: OvsdbClient,
  operations: readonly OvsdbOperation[],
  signal: AbortSignal,
): Promise<void> {
  const root = { table: 'Open_vSwitch', where: [] } as const;
  const results = await client.transact(
    openVSwitch,
    [
      ...operations,
      { op: 'mutate', ...root, mutations: [['next_cfg', '+=', 1]] },
      { op: 'select', ...root, columns: ['next_cfg'] },
    ],
    { signal },
  );
  const wanted = numbersOf(results.at(-1)?.rows?.[0]?.['next_cfg'])[0]!;
  const startedAtMs = performance.now();
  for (;;) {
    const [found] = await client.transact(openVSwitch, [{ op: 'select', ...root, columns: ['cur_cfg'] }], {
      signal,
    });
    if (numbersOf(found?.rows?.[0]?.['cur_cfg'])[0]! >= wanted) return;
    if (performance.now() - startedAtMs > appliedBoundMs)
      throw new StaghornError(
        'deadline-exceeded',
        'ovs-vswitchd did not take up the ports that were made again',
      );
    await delay(appliedPollMs, undefined, { signal });
  }
}

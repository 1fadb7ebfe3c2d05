import { join } from 'node:path';

import { messageOf, StaghornError } from '../../errors/index.ts';
import {
  namedUuid,
  OvsdbClient,
  openVSwitch,
  readSwitches,
  toSet,
  type OvsBridge,
} from '../../ovsdb/index.ts';
import { runDirectory } from '../../unixctl/index.ts';
import { switchPort, type SwitchPort } from '../../protocol/vm.ts';

/** Where Open vSwitch's database listens (ovsdb-server(1)). */
export const ovsdbSocket = (): string => join(runDirectory(), 'db.sock');

/**
 * Which bridge, port and VLAN each interface of the host is plugged into, by interface name.
 * @throws StaghornError 'host-unfit' if the database does not answer.
 */
export async function readSwitchPorts(
  path: string = ovsdbSocket(),
  signal?: AbortSignal,
): Promise<Map<string, SwitchPort>> {
  return switchPortsOf(await withSwitches(path, signal, (client) => readSwitches(client, { signal })));
}

/** The same of bridges that have been read already. */
export function switchPortsOf(bridges: readonly OvsBridge[]): Map<string, SwitchPort> {
  return new Map(
    bridges.flatMap((bridge) =>
      bridge.ports.flatMap((port) =>
        port.interfaces.map((iface): [string, SwitchPort] => [
          iface.name,
          {
            bridge: bridge.name,
            port: port.name,
            vlanMode: vlanModes.find((mode) => mode === port.vlanMode) ?? null,
            tag: port.tag ?? null,
            trunks: [...port.trunks],
          },
        ]),
      ),
    ),
  );
}

const vlanModes = switchPort.shape.vlanMode.unwrap().options;

/**
 * Plugs an interface into its bridge as it was: port, VLAN mode, tag and trunks (ovs-vswitchd.conf.db(5)).
 * @throws StaghornError 'host-unfit'
 */
export async function plugPort(name: string, place: SwitchPort, signal?: AbortSignal): Promise<void> {
  const { bridge, port, vlanMode, tag, trunks } = place;
  const portRow = {
    name: port,
    interfaces: namedUuid('iface'),
    trunks: toSet(trunks),
    ...(tag === null ? {} : { tag }),
    ...(vlanMode === null ? {} : { vlan_mode: vlanMode }),
  };
  await withSwitches(undefined, signal, (client) =>
    client.transact(openVSwitch, [
      { op: 'insert', table: 'Interface', row: { name }, 'uuid-name': 'iface' },
      { op: 'insert', table: 'Port', row: portRow, 'uuid-name': 'port' },
      {
        op: 'mutate',
        table: 'Bridge',
        where: [['name', '==', bridge]],
        mutations: [['ports', 'insert', namedUuid('port')]],
      },
      // ovs-vswitchd reads the database again when this number grows.
      { op: 'mutate', table: 'Open_vSwitch', where: [], mutations: [['next_cfg', '+=', 1]] },
    ]),
  );
}

/** Does something over a connection of its own to the host's database. @throws StaghornError 'host-unfit' */
export async function withSwitches<T>(
  path: string | undefined,
  signal: AbortSignal | undefined,
  work: (client: OvsdbClient) => Promise<T>,
): Promise<T> {
  return asking(signal, async () => {
    const client = await OvsdbClient.connect({ path: path ?? ovsdbSocket(), signal });
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  });
}

/** A connection to the host's database, the caller's to close. @throws StaghornError 'host-unfit' */
export function connectSwitches(signal?: AbortSignal): Promise<OvsdbClient> {
  return asking(signal, () => OvsdbClient.connect({ path: ovsdbSocket(), signal }));
}

/** Asks the host's database something. @throws StaghornError 'host-unfit' if it does not answer */
export async function asking<T>(signal: AbortSignal | undefined, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof StaghornError) throw error;
    const text = `Open vSwitch does not answer: ${messageOf(error)}; is ovsdb-server running?`;
    throw new StaghornError('host-unfit', text, { cause: error });
  }
}

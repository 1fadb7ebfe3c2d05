import { messageOf, StaghornError } from '../errors/index.ts';
import { OvsdbClient, readSwitches } from '../ovsdb/index.ts';
import type { SwitchPort } from '../protocol/vm.ts';

/** Where Open vSwitch's database listens by default (ovsdb-server(1)). */
export const defaultOvsdbSocket = '/var/run/openvswitch/db.sock';

/**
 * Which bridge, port and VLAN each interface of the host is plugged into, by interface name.
 * @throws StaghornError 'host-unfit' if the database does not answer.
 */
export async function readSwitchPorts(
  path: string = defaultOvsdbSocket,
  signal?: AbortSignal,
): Promise<Map<string, SwitchPort>> {
  try {
    const client = await OvsdbClient.connect({ path, signal });
    try {
      const bridges = await readSwitches(client);
      return new Map(
        bridges.flatMap((bridge) =>
          bridge.ports.flatMap((port) =>
            port.interfaces.map((iface): [string, SwitchPort] => [
              iface.name,
              {
                bridge: bridge.name,
                port: port.name,
                vlanMode: port.vlanMode,
                tag: port.tag,
                trunks: [...port.trunks],
              },
            ]),
          ),
        ),
      );
    } finally {
      await client.close();
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw new StaghornError('host-unfit', `Open vSwitch does not answer: ${messageOf(error)}; is ovsdb-server running?`, {
      cause: error,
    });
  }
}

import type { Placement } from '../../protocol/fork.ts';
import { fromMap, toMap, type OvsdbValue } from '../../ovsdb/index.ts';
import type {
  StoredBridge,
  StoredInterface,
  StoredPort,
  StoredSwitches,
} from '../../store/stored-switches.ts';
import { placedDevice } from './names.ts';
import { isKeyedTunnel, tunnelKeysOf, withKeys } from './tunnel-keys.ts';

export interface PlacedSwitches {
  readonly switches: StoredSwitches;
  /** What the fork's switches are not joined to, in words. */
  readonly warnings: readonly string[];
  readonly obstacles: readonly string[];
}

/**
 * The switches of a fork: bridges, ports and tunnels under names of their own, and nothing that leads out of the
 * experiment. Ports keep their OpenFlow numbers, so flows mean what they meant.
 * @param taps of the VMs, as the snapshot names them
 */
export function placeSwitches(
  { bridges, qdiscs }: StoredSwitches,
  taps: ReadonlySet<string>,
  placement: Placement,
): PlacedSwitches {
  const inside = insideOf(bridges, taps);
  const warnings: string[] = [];
  const obstacles: string[] = [];
  const placed = bridges.map((bridge) => {
    const kept = bridge.ports.filter((port) => port.interfaces.every((one) => inside(bridge, one)));
    const left = bridge.ports.filter((port) => !kept.includes(port));
    warnings.push(...left.map(({ name }) => leftOut(bridge.name, name)));
    obstacles.push(...kept.flatMap((port) => port.interfaces.flatMap(keyObstacle)));
    return placeBridge({ ...bridge, ports: kept }, placement);
  });
  const { fork } = placement;
  const own = qdiscs.map((queue) => ({ ...queue, tap: placedDevice(queue.tap, fork) }));
  return { switches: { bridges: placed, qdiscs: own }, warnings, obstacles };
}

const leftOut = (bridge: string, port: string) =>
  `bridge ${bridge}: port ${port} leads out of the experiment; a fork has none`;

/** Taps, the bridge's own interface, tunnels, and patches between bridges that are all there. */
function insideOf(bridges: readonly StoredBridge[], taps: ReadonlySet<string>) {
  const names = new Set(bridges.flatMap(({ ports }) => ports.flatMap(interfaceNames)));
  return (bridge: StoredBridge, one: StoredInterface): boolean => {
    if (one.name === bridge.name || taps.has(one.name) || isKeyedTunnel(one)) return true;
    const peer = peerOf(one);
    return peer !== null && names.has(peer);
  };
}

const interfaceNames = ({ interfaces }: StoredPort) => interfaces.map(({ name }) => name);

function peerOf({ type, columns }: StoredInterface): string | null {
  if (type !== 'patch' || columns['options'] === undefined) return null;
  const peer = fromMap(columns['options'] as OvsdbValue).get('peer');
  return typeof peer === 'string' ? peer : null;
}

function keyObstacle(one: StoredInterface): string[] {
  if (!isKeyedTunnel(one) || tunnelKeysOf(one) !== null) return [];
  return [`flows set the keys of tunnel ${one.name}: a fork could not be kept apart from its original`];
}

function placeBridge(bridge: StoredBridge, placement: Placement): StoredBridge {
  const { fork } = placement;
  const present = new Set(bridge.ports.flatMap(interfaceNames));
  return {
    ...bridge,
    name: placedDevice(bridge.name, fork),
    ports: bridge.ports.map((port) => placePort(port, placement)),
    macTable:
      bridge.macTable
        ?.filter((entry) => present.has(entry.interface))
        .map((entry) => ({ ...entry, interface: placedDevice(entry.interface, fork) })) ?? null,
  };
}

function placePort(port: StoredPort, placement: Placement): StoredPort {
  const { fork } = placement;
  return {
    ...port,
    name: placedDevice(port.name, fork),
    interfaces: port.interfaces.map((one) => placeInterface(one, placement)),
    // Under this name no row is there yet: the fork's ports get one of their own.
    qos: port.qos && { ...port.qos, uuid: `${port.qos.uuid} of fork ${fork}` },
  };
}

function placeInterface(one: StoredInterface, { fork, tunnelKeys }: Placement): StoredInterface {
  const named = { ...one, name: placedDevice(one.name, fork) };
  if (isKeyedTunnel(one)) return withKeys(named, tunnelKeys);
  const peer = peerOf(one);
  if (peer === null) return named;
  const options = fromMap(one.columns['options'] as OvsdbValue).set('peer', placedDevice(peer, fork));
  return { ...named, columns: { ...one.columns, options: toMap(options) as never } };
}

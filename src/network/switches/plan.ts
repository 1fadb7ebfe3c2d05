import { isDeepStrictEqual } from 'node:util';

import type { StoredBridge, StoredPort } from '../../store/stored-switches.ts';
import type { BridgeConfig } from './config.ts';

/** What has to be made so that the switches of a snapshot are there again, as data. */
export interface SwitchPlan {
  /** Bridges that are gone, with those of their ports that can be there. */
  readonly bridges: readonly StoredBridge[];
  /** Ports that are gone from bridges that are there. */
  readonly ports: readonly { readonly bridge: string; readonly port: StoredPort }[];
  /** What is left as it is found although it was different, and what cannot come back; in words. */
  readonly warnings: readonly string[];
}

/**
 * Compares the switches of a snapshot with what is there. What is there is never changed; what is gone comes back.
 * @param devices the host's network devices: a port whose device is gone cannot come back
 */
export function planSwitches(
  stored: readonly StoredBridge[],
  present: readonly BridgeConfig[],
  devices: ReadonlySet<string>,
): SwitchPlan {
  const bridges: StoredBridge[] = [];
  const ports: { bridge: string; port: StoredPort }[] = [];
  const warnings: string[] = [];
  const plugged = pluggedPorts(present);
  for (const bridge of stored) {
    const missing = bridge.ports.filter(({ name }) => !plugged.has(name));
    const possible = missing.filter((port) => canBePlugged(port, devices));
    const isGone = !present.some(({ name }) => name === bridge.name);
    if (isGone) bridges.push({ ...bridge, ports: possible });
    else ports.push(...possible.map((port) => ({ bridge: bridge.name, port })));
    warnings.push(
      ...(isGone ? remarksOnNew(bridge) : []),
      ...missing.filter((port) => !possible.includes(port)).map((port) => withoutDevice(bridge.name, port)),
      ...bridge.ports.flatMap((port) => differences(bridge.name, port, plugged.get(port.name))),
    );
  }
  return { bridges, ports, warnings };
}

interface PluggedPort {
  readonly bridge: string;
  readonly port: StoredPort;
}

function pluggedPorts(present: readonly BridgeConfig[]): Map<string, PluggedPort> {
  return new Map(
    present.flatMap(({ name, ports }) => ports.map((port) => [port.name, { bridge: name, port }] as const)),
  );
}

/** Open vSwitch makes devices of every other type itself. */
const canBePlugged = ({ interfaces }: StoredPort, devices: ReadonlySet<string>) =>
  interfaces.every(({ type, name }) => type !== 'system' || devices.has(name));

const withoutDevice = (bridge: string, { name }: StoredPort) =>
  `bridge ${bridge}: port ${name} is gone, and its device too; it was not made again`;

function remarksOnNew({ name, controllers }: StoredBridge): string[] {
  const made = `bridge ${name} was gone and has been made again, without addresses and routes of its own device`;
  return controllers.length === 0
    ? [made]
    : [`${made}, and without its controllers ${controllers.join(', ')}`];
}

function differences(bridge: string, stored: StoredPort, found: PluggedPort | undefined): string[] {
  if (found === undefined) return [];
  if (found.bridge !== bridge)
    return [`port ${stored.name} was in bridge ${bridge} and is in ${found.bridge}; it is left there`];
  const settings = ({ columns, interfaces, qos }: StoredPort) => ({
    columns,
    interfaces: interfaces.map(({ name, columns: { ofport_request: _, ...others } }) => ({
      name,
      ...others,
    })),
    qos: qos === null ? null : { type: qos.type, columns: qos.columns, queues: qos.queues },
  });
  if (isDeepStrictEqual(settings(stored), settings(found.port))) return [];
  return [`bridge ${bridge}: port ${stored.name} is set otherwise than in the snapshot; it is left so`];
}

import { fromMap, toMap, type OvsdbAtom, type OvsdbValue } from '../../ovsdb/index.ts';
import type { StoredInterface } from '../../store/stored-switches.ts';
import type { BridgeConfig } from '../../network/switches/config.ts';

/** Tunnels that tell networks apart by a key of at least 24 bits (ovs-vswitchd.conf.db(5), Tunnel Options). */
const keyedTypes = new Set(['vxlan', 'geneve', 'gre', 'ip6gre', 'stt']);
const keyOptions = ['key', 'in_key', 'out_key'] as const;

export const isKeyedTunnel = ({ type }: Pick<StoredInterface, 'type'>): boolean => keyedTypes.has(type);

const optionsOf = ({ columns }: StoredInterface): Map<OvsdbAtom, OvsdbAtom> =>
  columns['options'] === undefined
    ? new Map<OvsdbAtom, OvsdbAtom>()
    : fromMap(columns['options'] as OvsdbValue);

/**
 * The keys that a tunnel has, as numbers; 0 is none at all.
 * @returns null if flows set them, frame by frame
 */
export function tunnelKeysOf(tunnel: StoredInterface): number[] | null {
  const options = optionsOf(tunnel);
  const written = keyOptions.flatMap((key) => options.get(key) ?? []);
  // "0x64" is a key too; so is "flow", which is none. What is left out is 0.
  const keys = (written.length === 0 ? ['0'] : written).map(Number);
  return keys.every(Number.isSafeInteger) ? [...new Set(keys)] : null;
}

/** The tunnel with the keys of a fork in place of its own. */
export function withKeys(tunnel: StoredInterface, own: Readonly<Record<string, number>>): StoredInterface {
  const options = optionsOf(tunnel);
  const ownOf = (key: OvsdbAtom | undefined): string => String(own[String(Number(key ?? 0))]);
  const changed = keyOptions.filter((key) => options.has(key) || (key === 'key' && !hasBoth(options)));
  for (const key of changed) options.set(key, ownOf(options.get(key)));
  return { ...tunnel, columns: { ...tunnel.columns, options: toMap(options) as never } };
}

const hasBoth = (options: ReadonlyMap<OvsdbAtom, OvsdbAtom>) =>
  options.has('in_key') || options.has('out_key');

/** Every key of a tunnel of these bridges. */
export function keysInUse(bridges: readonly Pick<BridgeConfig, 'ports'>[]): number[] {
  const interfaces = bridges.flatMap(({ ports }) => ports.flatMap((port) => port.interfaces));
  return [...new Set(interfaces.filter(isKeyedTunnel).flatMap((tunnel) => tunnelKeysOf(tunnel) ?? []))];
}

import { StaghornError } from '../../errors/index.ts';
import { EdgePorts, type EdgePort, type ExternalPort } from '../../network/edge-ports.ts';
import type { SwitchInterfaces } from '../../network/switches/watch.ts';
import type { ExternalFrames } from '../../protocol/resources.ts';
import type { HostSurroundings } from '../../vmm/inspect.ts';
import type { Intent } from './intent.ts';

export interface EdgeWish {
  readonly names: readonly string[];
  readonly frames: ExternalFrames;
  readonly ringBytes: number;
}

/**
 * The edge of the experiment on this host, on no port yet; null where there is nothing to hold.
 * @throws StaghornError 'network-unfit' naming a port that is not there or on no switch, 'host-unfit'
 */
export function edgeOf(
  { names, frames, ringBytes }: EdgeWish,
  links: HostSurroundings['links'],
  switched: SwitchInterfaces,
): EdgePorts | null {
  const ports = names.map((name) => externalPort(name, links, switched));
  if (frames === 'pass' || ports.length === 0) return null;
  // Nothing is kept of what is dropped.
  return EdgePorts.create({
    ports,
    policy: frames,
    ringBytes: frames === 'drop' ? smallestRingBytes : ringBytes,
  });
}

const smallestRingBytes = 256 * 1024;

function externalPort(
  name: string,
  links: HostSurroundings['links'],
  switched: SwitchInterfaces,
): ExternalPort {
  const unfit = (why: string) =>
    new StaghornError('network-unfit', `external port ${name} ${why}`, { context: { port: name } });
  const link = links.find((candidate) => candidate.name === name);
  if (link === undefined) throw unfit('does not exist on this host');
  const place = switched.get(name);
  if (place === undefined) throw unfit('is on no switch of this host');
  // Of these the host's own stack is the far end: what it sends does not come in at a receive side.
  if (place.type === 'internal') {
    throw unfit(
      "is an internal port of the switch, which cannot be held; give the host's process a veth pair",
    );
  }
  return { name, ifindex: link.ifindex, mtu: link.mtu, mac: link.mac };
}

/** The edge that a dead agent left on its ports; null if there is none any more. */
export function edgeLeftBy({ edge }: Intent): EdgePorts | null {
  if (edge === null) return null;
  try {
    return EdgePorts.adopt(edge.gate, edge.policy, edge.ports);
  } catch (error) {
    if (error instanceof StaghornError && error.code === 'not-found') return null;
    throw error;
  }
}

export function describeEdge(edge: EdgePorts | null): Intent['edge'] {
  if (edge === null) return null;
  const { identity: gate, policy, ports } = edge;
  return { gate, policy, ports: ports.map((port: EdgePort) => ({ ...port })) };
}

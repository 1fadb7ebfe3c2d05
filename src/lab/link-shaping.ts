import type { HostPlan, TunnelPlan } from './host-plan.ts';
import { qdiscArguments, type KernelPart } from './shaping.ts';

/**
 * Links are shaped where a host's tunnels leave it, on its end of the wire: a class for each link, told by the
 * outer address of the other host and the tunnel's key, so that links of one host, and several links between the
 * same two, do not share a queue. What belongs to no shaped link passes by.
 */
export const UNDERLAY_PORT = 'underlay';

/** More than any link of a lab: the class only sorts, its inner qdisc shapes. */
const UNBOUNDED = ['rate', '100gbit', 'quantum', '60000'];

type Command = readonly string[];

/** Where a tunnel's key is, from the outer IPv4 header on: RFC 7348 (5), RFC 8926 (3.4), RFC 2890 (2). */
const keyOf: Readonly<Record<TunnelPlan['type'], { protocol: number; at: number; shift: number }>> = {
  vxlan: { protocol: 17, at: 32, shift: 8 },
  geneve: { protocol: 17, at: 32, shift: 8 },
  gre: { protocol: 47, at: 24, shift: 0 },
};

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

function matches({ type, key, remoteAddress }: TunnelPlan): string[] {
  const { protocol, at, shift } = keyOf[type];
  return [
    ...['match', 'ip', 'dst', `${remoteAddress}/32`],
    ...['match', 'ip', 'protocol', String(protocol), '0xff'],
    ...['match', 'u32', hex(key * 2 ** shift), hex(2 ** 32 - 2 ** shift), 'at', String(at)],
  ];
}

export function shapedTunnels({ tunnels }: HostPlan): readonly TunnelPlan[] {
  return tunnels.filter(({ shape }) => shape !== null);
}

/** What the kernel needs for the shaped links beside their inner qdiscs. */
export const LINK_PARTS: readonly KernelPart[] = ['htb', 'u32'];

/** The commands that shape a host's links; the underlay's port must be in its bridge, with a QoS of "linux-noop". */
export function linkShapingCommands(host: HostPlan): Command[] {
  const shaped = shapedTunnels(host);
  if (shaped.length === 0) return [];
  const device = ['dev', UNDERLAY_PORT];
  return [
    ['tc', 'qdisc', 'replace', ...device, 'root', 'handle', '1:', 'htb'],
    ...shaped.flatMap((tunnel, index): Command[] => {
      const minor = (index + 1).toString(16);
      const inner = qdiscArguments(tunnel.shape!, tunnel.mtuBytes);
      return [
        ['tc', 'class', 'add', ...device, 'parent', '1:', 'classid', `1:${minor}`, 'htb', ...UNBOUNDED],
        ['tc', 'qdisc', 'add', ...device, 'parent', `1:${minor}`, ...inner],
        [
          ...['tc', 'filter', 'add', ...device, 'parent', '1:', 'protocol', 'ip', 'prio', '1', 'u32'],
          ...[...matches(tunnel), 'flowid', `1:${minor}`],
        ],
      ];
    }),
  ];
}

import { StaghornError } from '../errors/index.ts';
import { run } from './command.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { allRecords } from './record.ts';
import { overlaps, parseSubnet, subnetOf } from './subnet.ts';
import { UNDERLAY_MTU_BYTES } from './switches.ts';
import { z } from 'zod';

const addresses = z.array(
  z.object({
    ifname: z.string(),
    addr_info: z.array(z.object({ family: z.string(), local: z.string().optional(), prefixlen: z.int() })),
  }),
);

/**
 * @throws StaghornError 'conflict' if another lab or an interface of the machine uses the management subnet
 */
export async function refuseClash(plan: LabPlan, signal: AbortSignal): Promise<void> {
  const wanted = parseSubnet(plan.management.subnet);
  if (wanted === undefined)
    throw new StaghornError('invalid-input', `${plan.management.subnet} is no subnet`);
  const refuse = (by: string): StaghornError =>
    new StaghornError(
      'conflict',
      `the management subnet ${plan.management.subnet} of lab "${plan.name}" is used by ${by}; ` +
        'give the lab another one ("management:" in its file)',
    );
  for (const record of await allRecords()) {
    const other = parseSubnet(record.managementSubnet);
    if (record.name !== plan.name && other !== undefined && overlaps(wanted, other))
      throw refuse(`the lab "${record.name}"`);
  }
  const links = addresses.parse(JSON.parse(await run(['ip', '-json', '-4', 'address'], { signal })));
  for (const { ifname, addr_info } of links) {
    for (const { local, prefixlen } of addr_info) {
      const other = local === undefined ? undefined : subnetOf(local, prefixlen);
      if (other !== undefined && overlaps(wanted, other)) throw refuse(`the interface ${ifname} (${local})`);
    }
  }
}

/** Namespaces without IPv6, whose neighbour discovery would show up as frames on the taps. */
async function makeNamespace(name: string, signal: AbortSignal): Promise<void> {
  await run(['ip', 'netns', 'add', name], { signal });
  const script = 'for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do [ ! -e "$f" ] || echo 1 >"$f"; done';
  await run(['nsenter', `--net=/run/netns/${name}`, 'sh', '-c', script], { signal });
  await run(['ip', '-n', name, 'link', 'set', 'lo', 'up'], { signal });
}

async function wireHost(plan: LabPlan, host: HostPlan, signal: AbortSignal): Promise<void> {
  const { namespace, managementLink, wireLink } = host;
  await makeNamespace(namespace, signal);
  const lines = [
    `link add ${managementLink} type veth peer name management netns ${namespace}`,
    `link set ${managementLink} master ${plan.management.bridge} up`,
    `-n ${namespace} address add ${host.managementAddress} dev management`,
    `-n ${namespace} link set management up`,
    `-n ${namespace} link add underlay mtu ${UNDERLAY_MTU_BYTES} type veth peer name ${wireLink} mtu ${UNDERLAY_MTU_BYTES} netns ${plan.wireNamespace}`,
    `-n ${namespace} link set underlay up`,
    `-n ${plan.wireNamespace} link set ${wireLink} master wire up`,
  ];
  for (const line of lines) await run(['ip', ...line.split(' ')], { signal });
}

/** Namespaces and links of a lab: all of them have a name from the plan, so that `down` finds them. */
export async function wireLab(plan: LabPlan, signal: AbortSignal): Promise<void> {
  const { bridge, address } = plan.management;
  await makeNamespace(plan.wireNamespace, signal);
  const lines = [
    `link add ${bridge} type bridge`,
    `address add ${address} dev ${bridge}`,
    `link set ${bridge} up`,
    `-n ${plan.wireNamespace} link add wire mtu ${UNDERLAY_MTU_BYTES} type bridge mcast_snooping 0`,
    `-n ${plan.wireNamespace} link set wire up`,
  ];
  for (const line of lines) await run(['ip', ...line.split(' ')], { signal });
  for (const host of plan.hosts) await wireHost(plan, host, signal);
}

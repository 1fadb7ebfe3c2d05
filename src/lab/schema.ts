import { z } from 'zod';
import { overlaps, parseSubnet } from './subnet.ts';

/**
 * The lab file. Strict objects, defaults in the schema; what is derived (addresses, MACs, peers) is in `plan.ts`.
 * Names end up in names of namespaces, interfaces and files, so they are short and plain.
 */
const labName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,23}$/, 'a lower-case letter, then at most 23 of a-z, 0-9 and "-"');
const memberName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,14}$/, 'a lower-case letter, then at most 14 of a-z, 0-9 and "-"');
const bridgeName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,13}$/, 'a lower-case letter, then at most 13 of a-z, 0-9 and "-"');
const mac = z.string().regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, 'a lower-case unicast MAC address');
const ipv4 = z.ipv4();
const rate = z.string().regex(/^\d+(\.\d+)?[kmg]?bit$/, 'a rate of tc(8), such as "20mbit"');
const byteCount = z.string().regex(/^\d+k?b$/, 'a size of tc(8), such as "4kb"');
const duration = z.string().regex(/^\d+(\.\d+)?[mu]?s$/, 'a time of tc(8), such as "400ms"');

const subnet = z.string().superRefine((text, context) => {
  const parsed = parseSubnet(text);
  if (parsed === undefined)
    context.addIssue('an IPv4 subnet whose host bits are zero, such as "198.18.0.0/24"');
  else if (parsed.prefix < 16 || parsed.prefix > 28) context.addIssue('a prefix length from 16 to 28');
});

/** A token bucket filter on a tap's egress, that is on what the VM receives (tc-tbf(8)). */
const shape = z.strictObject({
  rate,
  burst: byteCount.default('4kb'),
  latency: duration.default('400ms'),
});

const nic = z.strictObject({
  network: memberName.optional(),
  switch: bridgeName.default('br-int'),
  mac: mac.optional(),
  ip: ipv4.optional(),
  shape: shape.optional(),
});

const tcpRate = z.union([z.literal('unlimited'), z.int().min(1000)]);

/** What every peer sends to this VM, and what this VM lets be in flight towards it. */
const probe = z.strictObject({
  udpIntervalMs: z.int().min(1).max(1000).default(20),
  tcp: z.boolean().default(true),
  tcpBytesPerSecond: tcpRate.default(50_000),
  /** Rates of single peers, by name. */
  tcpFrom: z.record(memberName, tcpRate).default({}),
  tcpWindowBytes: z.int().min(2048).max(1_000_000).optional(),
  tcpSegmentBytes: z.int().min(88).max(1460).optional(),
  reportIntervalMs: z.int().min(100).max(60_000).default(1000),
});

const host = z.strictObject({
  name: memberName,
  switches: z
    .array(z.strictObject({ name: bridgeName, datapath: z.literal('netdev').default('netdev') }))
    .min(1)
    .default([{ name: 'br-int', datapath: 'netdev' }]),
  clock: z
    .strictObject({
      /** Shifts CLOCK_MONOTONIC and CLOCK_BOOTTIME on this host by a time namespace. */
      monotonicOffsetSeconds: z.int().min(0).max(1_000_000_000),
    })
    .optional(),
});

const vm = z.strictObject({
  name: memberName,
  host: memberName,
  memoryMiB: z.int().min(64).max(65_536).default(128),
  cpus: z.int().min(1).max(16).default(1),
  nics: z
    .array(nic)
    .min(1)
    .max(8)
    .default([{ switch: 'br-int' }]),
  probe: probe.prefault({}),
});

const network = z.strictObject({
  name: memberName,
  vlan: z.int().min(1).max(4094).optional(),
  subnet: subnet.default('10.77.0.0/24'),
});

const link = z.strictObject({
  from: memberName,
  to: memberName,
  type: z.literal('vxlan').default('vxlan'),
  key: z.int().min(1).max(16_777_215).optional(),
  switch: bridgeName.default('br-int'),
});

const labShape = z.strictObject({
  name: labName,
  accelerator: z.enum(['auto', 'kvm', 'tcg']).default('tcg'),
  /** The controller reaches the hosts here; a range for benchmarks (RFC 2544), so that it clashes with nothing. */
  management: subnet.default('198.18.0.0/24'),
  /** The tunnels' outer addresses, in a network namespace of the lab's own. */
  underlay: subnet.default('198.19.0.0/24'),
  bootDeadlineSeconds: z.int().min(5).max(3600).default(120),
  hosts: z.array(host).min(1).max(32),
  networks: z
    .array(network)
    .min(1)
    .default([{ name: 'lan', subnet: '10.77.0.0/24' }]),
  /** Left out: a full mesh of VXLAN tunnels between the switches of equal name. */
  links: z.array(link).optional(),
  vms: z.array(vm).min(1).max(65),
});

type Shape = z.infer<typeof labShape>;
type Report = (path: (string | number)[], message: string) => void;

function checkUnique(items: readonly { name: string }[], kind: string, report: Report): void {
  const seen = new Set<string>();
  items.forEach(({ name }, index) => {
    if (seen.has(name)) report([kind, index, 'name'], `"${name}" is there twice`);
    seen.add(name);
  });
}

function checkVms(lab: Shape, report: Report): void {
  const networks = new Set(lab.networks.map(({ name }) => name));
  lab.vms.forEach((candidate, v) => {
    const on = lab.hosts.find(({ name }) => name === candidate.host);
    if (on === undefined) report(['vms', v, 'host'], `there is no host "${candidate.host}"`);
    for (const peer of Object.keys(candidate.probe.tcpFrom)) {
      if (!lab.vms.some(({ name }) => name === peer))
        report(['vms', v, 'probe', 'tcpFrom', peer], `there is no VM "${peer}"`);
    }
    candidate.nics.forEach((port, n) => {
      if (port.network !== undefined && !networks.has(port.network))
        report(['vms', v, 'nics', n, 'network'], `there is no network "${port.network}"`);
      if (on !== undefined && !on.switches.some(({ name }) => name === port.switch))
        report(['vms', v, 'nics', n, 'switch'], `host "${on.name}" has no switch "${port.switch}"`);
    });
  });
}

/** The switch forwards by MAC learning without a spanning tree: a ring of links would multiply frames. */
function checkLinks(lab: Shape, report: Report): void {
  const parent = new Map<string, string>();
  const root = (name: string): string => {
    const above = parent.get(name);
    return above === undefined ? name : root(above);
  };
  lab.links?.forEach((candidate, l) => {
    const ends = [candidate.from, candidate.to].map((name) => lab.hosts.find((one) => one.name === name));
    ends.forEach((end, e) => {
      const key = e === 0 ? 'from' : 'to';
      if (end === undefined) report(['links', l, key], `there is no host "${candidate[key]}"`);
      else if (!end.switches.some(({ name }) => name === candidate.switch))
        report(['links', l, 'switch'], `host "${end.name}" has no switch "${candidate.switch}"`);
    });
    const [from, to] = [candidate.from, candidate.to].map((name) => root(`${candidate.switch} ${name}`)) as [
      string,
      string,
    ];
    if (from === to) report(['links', l], `the links of "${candidate.switch}" form a loop`);
    else parent.set(from, to);
  });
}

/** A shaped tap on a VM without the probe's window would queue without bound; that is the user's to want. */
export const labSchema = labShape.superRefine((lab, context) => {
  const report: Report = (path, message) => context.addIssue({ code: 'custom', path, message });
  checkUnique(lab.hosts, 'hosts', report);
  checkUnique(lab.networks, 'networks', report);
  checkUnique(lab.vms, 'vms', report);
  lab.hosts.forEach(({ switches }, index) =>
    checkUnique(switches, 'switches', (path, message) => report(['hosts', index, ...path], message)),
  );
  lab.hosts.forEach(({ switches }, index) => {
    if (switches.some(({ name }) => name === 'br-underlay'))
      report(['hosts', index, 'switches'], '"br-underlay" is the name of the lab\'s own bridge');
  });
  checkVms(lab, report);
  checkLinks(lab, report);
  const [management, underlay] = [parseSubnet(lab.management), parseSubnet(lab.underlay)];
  if (management !== undefined && underlay !== undefined && overlaps(management, underlay))
    report(['underlay'], `overlaps with the management subnet ${lab.management}`);
});

export type LabFile = z.infer<typeof labSchema>;
export type Shaping = z.infer<typeof shape>;

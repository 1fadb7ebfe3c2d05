import { z } from 'zod';
import { shapeSchema } from './shaping.ts';
import { parseSubnet } from './subnet.ts';

/**
 * The lab file, key by key. Strict objects, defaults in the schema; how keys depend on each other is in
 * `schema-checks.ts`, what is derived from them (addresses, MACs, peers) in `plan.ts`.
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

const subnet = z.string().superRefine((text, context) => {
  const parsed = parseSubnet(text);
  if (parsed === undefined)
    context.addIssue('an IPv4 subnet whose host bits are zero, such as "198.18.0.0/24"');
  else if (parsed.prefix < 16 || parsed.prefix > 28) context.addIssue('a prefix length from 16 to 28');
});

const nic = z.strictObject({
  network: memberName.optional(),
  /** Networks with a VLAN: their frames come tagged, and the guest has an interface in each. */
  trunk: z.array(memberName).min(1).max(16).optional(),
  switch: bridgeName.default('br-int'),
  mac: mac.optional(),
  ip: ipv4.optional(),
  model: z.enum(['virtio', 'e1000', 'rtl8139']).default('virtio'),
  queues: z.int().min(1).max(8).default(1),
  vhost: z.enum(['auto', 'on', 'off']).default('off'),
  /** Whether checksums and segmentation may be left to the network: the tap has virtio-net headers then. */
  offloads: z.enum(['on', 'off']).default('off'),
  /** On what the VM receives. */
  shape: shapeSchema.optional(),
  /** Whether QEMU writes what this NIC's tap gives it and gets from it to a file. */
  capture: z.boolean().default(false),
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
  tcpSegmentBytes: z.int().min(88).max(8960).optional(),
  /** Of the streams that this VM sends; the kernel's own is 200. */
  tcpLeastTimeoutMs: z.int().min(200).max(60_000).default(3000),
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

/** An empty image on virtio-blk; the guest keeps a count on it. */
const disk = z.strictObject({
  sizeMiB: z.int().min(1).max(1_048_576).default(64),
  format: z.enum(['qcow2', 'raw']).default('qcow2'),
  cache: z.enum(['writeback', 'none', 'writethrough', 'directsync', 'unsafe']).default('writeback'),
});
export type DiskFile = z.infer<typeof disk>;

const vm = z.strictObject({
  name: memberName,
  host: memberName,
  memoryMiB: z.int().min(64).max(65_536).default(128),
  cpus: z.int().min(1).max(16).default(1),
  nics: z.array(nic).min(1).max(8).prefault([{}]),
  disks: z.array(disk).max(8).default([]),
  probe: probe.prefault({}),
});

const network = z.strictObject({
  name: memberName,
  vlan: z.int().min(1).max(4094).optional(),
  subnet: subnet.default('10.77.0.0/24'),
  mtu: z.int().min(576).max(9000).default(1500),
});

const link = z.strictObject({
  from: memberName,
  to: memberName,
  type: z.enum(['vxlan', 'geneve', 'gre']).default('vxlan'),
  key: z.int().min(1).max(16_777_215).optional(),
  switch: bridgeName.default('br-int'),
  /** On what goes from `from` to `to`, and back as well … */
  shape: shapeSchema.optional(),
  /** … unless this says otherwise. */
  shapeBack: shapeSchema.optional(),
});

export const labFields = z.strictObject({
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
    .prefault([{ name: 'lan' }]),
  /** Left out: a full mesh of VXLAN tunnels between the switches of equal name. */
  links: z.array(link).optional(),
  vms: z.array(vm).min(1).max(65),
});

export type LabFile = z.infer<typeof labFields>;

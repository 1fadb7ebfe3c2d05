import { z } from 'zod';

/** In the order of their pauses, the shortest first. */
export const saveMethod = z.enum(['fork', 'background', 'precopy', 'shared', 'stop-copy']);
export type SaveMethod = z.infer<typeof saveMethod>;
export const methodChoice = z.enum(['auto', ...saveMethod.options]);
export type MethodChoice = z.infer<typeof methodChoice>;

/** The switch port a tap is plugged into, as Open vSwitch's database has it (ovs-vswitchd.conf.db(5)). */
export const switchPort = z.strictObject({
  bridge: z.string(),
  port: z.string(),
  vlanMode: z.enum(['access', 'trunk', 'native-tagged', 'native-untagged', 'dot1q-tunnel']).nullable(),
  tag: z.int().min(0).max(4095).nullable(),
  trunks: z.array(z.int()),
});
export type SwitchPort = z.infer<typeof switchPort>;

export const nic = z.strictObject({
  /** QEMU's id of the `-netdev`. */
  netdev: z.string(),
  model: z.string(),
  mac: z.string(),
  tap: z.string(),
  ifindex: z.int(),
  vnetHdr: z.boolean(),
  queues: z.int().min(1).default(1).describe('Rings of the tap, each with a descriptor of its own in QEMU'),
  vhost: z.boolean(),
  mtu: z.int(),
  switchPort: switchPort.nullable(),
});
export type Nic = z.infer<typeof nic>;

/** A VM as an agent finds it: a QEMU process and what hangs on it. */
export const vm = z.strictObject({
  name: z.string().min(1),
  pid: z.int().positive(),
  exe: z.string(),
  argv: z.array(z.string()),
  qmpSocket: z.string().nullable(),
  qemuVersion: z.string().nullable(),
  machineType: z.string().nullable(),
  accelerator: z.string().nullable(),
  ramBytes: z.int().nonnegative().nullable(),
  /** QEMU's RunState: "running", "paused", … */
  status: z.string().nullable(),
  nics: z.array(nic),
  /** For each save method: null if it would work, else why not. */
  methods: z.record(saveMethod, z.string().nullable()),
  /** Why no snapshot of it is possible by any method; empty if one is. */
  obstacles: z.array(z.string()),
});
export type Vm = z.infer<typeof vm>;

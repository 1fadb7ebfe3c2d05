import { z } from 'zod';

import { storedFile } from './stored-file.ts';

/**
 * What a manifest keeps of a host's switches (docs/architecture.md#the-store). Rows of Open vSwitch's database are
 * kept as their configuration columns in the notation of RFC 7047, section 5.1, without those that are at their
 * default: so a column that this Staghorn has no use for comes back as it was.
 */
const columns = z.record(z.string(), z.json());
export type StoredColumns = z.infer<typeof columns>;

const storedInterface = z.strictObject({
  name: z.string(),
  /** 'system', 'internal', 'patch', 'vxlan', … */
  type: z.string(),
  /** The OpenFlow port; null if the switch could not add it. */
  ofport: z.int().nullable(),
  columns,
});
export type StoredInterface = z.infer<typeof storedInterface>;

const storedQos = z.strictObject({
  /** Of its row: ports may share one. */
  uuid: z.string(),
  type: z.string(),
  columns,
  queues: z.array(z.strictObject({ id: z.int().nonnegative(), columns })),
});
export type StoredQos = z.infer<typeof storedQos>;

export const storedPort = z.strictObject({
  name: z.string(),
  columns,
  interfaces: z.array(storedInterface),
  qos: storedQos.nullable(),
});
export type StoredPort = z.infer<typeof storedPort>;

/** An entry of a MAC learning table, by the interface that the address is behind. */
const storedMac = z.strictObject({
  interface: z.string(),
  vlan: z.int(),
  mac: z.string(),
  /** Null: static. */
  ageS: z.int().nullable(),
});
export type StoredMac = z.infer<typeof storedMac>;

export const storedBridge = z.strictObject({
  name: z.string(),
  columns,
  ports: z.array(storedPort),
  /** MAC address of the bridge's own interface. */
  localMac: z.string().nullable(),
  /** Whether that interface was up. */
  localUp: z.boolean(),
  /** Named only, and not set up again. */
  controllers: z.array(z.string()),
  /** What `ovs-ofctl dump-…` said, one entry a line; null if it said nothing. */
  openFlow: z.strictObject({ flows: storedFile, groups: storedFile, meters: storedFile }).nullable(),
  /** As it was when nothing was in flight any more; null if it could not be read. */
  macTable: z.array(storedMac).nullable(),
});
export type StoredBridge = z.infer<typeof storedBridge>;

const trafficControl = z.strictObject({
  kind: z.string(),
  handle: z.int(),
  parent: z.int(),
  /** The bytes of TCA_OPTIONS. */
  options: z.base64(),
});

/** Queueing disciplines of a tap that were set by hand, and their classes. */
export const storedQdiscs = z.strictObject({
  tap: z.string(),
  qdiscs: z.array(trafficControl),
  classes: z.array(trafficControl),
});
export type StoredQdiscs = z.infer<typeof storedQdiscs>;

export const storedSwitches = z.strictObject({
  bridges: z.array(storedBridge),
  qdiscs: z.array(storedQdiscs),
});
export type StoredSwitches = z.infer<typeof storedSwitches>;

import { z } from 'zod';

import { errorRegistry, type ErrorCode } from '../errors/index.ts';
import { forkOrigin, forkResult, resumeResult } from './fork.ts';
import { resourceName, snapshotId } from './names.ts';
import { pruneResult } from './prune.ts';
import { methodChoice, saveMethod, switchPort, vm } from './vm.ts';

/** The resources of the REST API, as the controller keeps them. Instants are ISO 8601, durations say their unit. */

export const errorCode = z.enum(Object.keys(errorRegistry) as [ErrorCode, ...ErrorCode[]]);

export const hostSpec = z.strictObject({
  name: resourceName.describe('Name of the host within the experiment'),
  ssh: z
    .string()
    .min(1)
    .optional()
    .describe('Host alias for ssh_config(5); the name of the host if left out'),
  sshConfig: z
    .string()
    .optional()
    .describe('Path of an ssh_config file on the controller; ~/.ssh/config if left out'),
  user: z.string().optional().describe('Login user, above what ssh_config says'),
  port: z.int().min(1).max(65535).optional(),
  agent: resourceName
    .optional()
    .describe('Name under which its agent is at the message broker; the name of the host if left out'),
  vms: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe('Names of the VMs that belong to the experiment; every VM on the host if left out'),
  external: z
    .array(z.string().min(1).max(15))
    .optional()
    .describe(
      'Interfaces on the host’s switches that lead out of the experiment: hardware, host processes, other networks',
    ),
});
export type HostSpec = z.infer<typeof hostSpec>;

/**
 * What carries the calls to the agents. `ssh`: the controller logs in and brings the agent along; `amqp`: agents that
 * the site runs have connected to its message broker.
 */
export const transport = z.enum(['ssh', 'amqp']);
export type Transport = z.infer<typeof transport>;

/**
 * What becomes of a frame that comes in from an external port while time stands still. `hold`: it is kept at the
 * port and let in when time goes on; `drop`: it is dropped; `pass`: it is let in, and is in flight like any other.
 */
export const externalFrames = z.enum(['hold', 'drop', 'pass']);
export type ExternalFrames = z.infer<typeof externalFrames>;

const MiB = 1024 * 1024;

/** The kernel's ring buffers take no other sizes (kernel/bpf/ringbuf.c). */
export const frameBufferBytes = z
  .int()
  .min(MiB)
  .max(1024 * MiB)
  .refine((bytes) => Number.isInteger(Math.log2(bytes)), 'must be a power of two')
  .describe('Room for held frames on each host: a power of two from 1 MiB to 1 GiB; 64 MiB if left out');

export const experimentInput = z.strictObject({
  name: resourceName,
  description: z.string().max(4096).optional(),
  hosts: z.array(hostSpec).min(1).max(1000),
  transport: transport.optional().describe('How the controller reaches the agents; ssh if left out'),
  externalFrames: externalFrames
    .optional()
    .describe('What becomes of frames from external ports while time stands still; hold if left out'),
  frameBufferBytes: frameBufferBytes.optional(),
});
export type ExperimentInput = z.infer<typeof experimentInput>;

export const experiment = experimentInput.extend({
  createdAt: z.iso.datetime(),
  state: z
    .enum(['running', 'snapshotting', 'paused', 'restoring'])
    .describe('What Staghorn is doing with it'),
  moment: snapshotId
    .optional()
    .describe('The snapshot that it was last restored from or that was taken last; none at first'),
  fork: forkOrigin.optional().describe('Of a fork: what it came from, and where it was put'),
});
export type Experiment = z.infer<typeof experiment>;

/** A VM together with the host it was found on. */
export const experimentVm = vm.extend({ host: z.string() });
export type ExperimentVm = z.infer<typeof experimentVm>;

export const experimentPort = z.strictObject({
  host: z.string(),
  vm: z.string(),
  tap: z.string(),
  mac: z.string(),
  model: z.string(),
  mtu: z.int(),
  switchPort: switchPort.nullable(),
});
export type ExperimentPort = z.infer<typeof experimentPort>;

/** Searched by key and value: `branch=main`. */
export const labels = z
  .record(resourceName, z.string().max(256))
  .describe('Words to find it by: keys and values');
export type Labels = z.infer<typeof labels>;

export const compression = z.enum(['none', 'zstd']);

export const snapshotInput = z.strictObject({
  name: resourceName.optional(),
  description: z.string().max(4096).optional(),
  method: methodChoice
    .default('auto')
    .describe('How RAM is saved; auto takes the one with the shortest pause'),
  labels: labels.default({}),
  incremental: z
    .boolean()
    .default(true)
    .describe('Store only what differs from the parent, the moment that the experiment came from'),
  compression: compression
    .default('none')
    .describe('Of stored RAM; what is compressed is rebuilt at a restore'),
  compressionLevel: z.int().min(1).max(19).optional().describe('Of zstd; 1, the fastest, if left out'),
  maxBandwidth: z
    .int()
    .positive()
    .optional()
    .describe('Bytes a second that each host may write while the experiment runs on; no limit if left out'),
});
export type SnapshotInput = z.infer<typeof snapshotInput>;

export const snapshotVm = z.strictObject({
  host: z.string(),
  name: z.string(),
  method: saveMethod,
  pauseNs: z
    .int()
    .describe('From the instant at which its vCPUs had stopped to the instant at which they ran again'),
  stopOffsetNs: z.int().describe("Its stop, counted from the first VM's stop, on the controller's clock"),
  resumeOffsetNs: z
    .int()
    .nullable()
    .default(null)
    .describe('Its resumption, counted from the same instant; null if its owner had paused it'),
  ramBytes: z.int(),
  stateBytes: z.int(),
  framesInFlight: z.int(),
});
export type SnapshotVm = z.infer<typeof snapshotVm>;

/** How well the cut was made on one host. */
export const snapshotHost = z.strictObject({
  host: z.string(),
  clockErrorNs: z.int().describe('Bound on the error of the offset between its clock and the controller’s'),
  clockSource: z
    .enum(['exchanges', 'utc'])
    .default('exchanges')
    .describe(
      'utc: all hosts are kept by chrony, ntpd or PTP, and the bound is what that says: how far the clock may be from UTC',
    ),
  wakeLatenessNs: z.int().describe('How late the thread that makes the cut woke'),
  realtime: z.boolean().describe('Whether that thread had real-time priority'),
});
export type SnapshotHost = z.infer<typeof snapshotHost>;

export const snapshot = z.strictObject({
  id: snapshotId,
  experiment: z.string(),
  name: z.string().nullable(),
  description: z.string().nullable(),
  labels: labels.default({}),
  parent: snapshotId
    .nullable()
    .default(null)
    .describe('The moment it came from: what was restored or taken last before it'),
  createdAt: z.iso.datetime(),
  stoppedAt: z.iso
    .datetime()
    .nullable()
    .default(null)
    .describe('The first stop of a VM, by the clock of the controller: the moment that it keeps'),
  state: z.enum(['storing', 'sealed', 'failed']),
  methods: z.array(saveMethod).describe('Every method that was used'),
  skewNs: z.int().describe('Last stop minus first stop of a VM'),
  clockErrorNs: z
    .int()
    .describe(
      'Bound on the error of skewNs: how well the hosts’ clocks are known against each other; 0 of one host',
    ),
  hosts: z.array(snapshotHost).default([]),
  pauseNs: z
    .strictObject({ min: z.int(), max: z.int() })
    .describe('Their difference is how far clocks moved against each other'),
  drainMs: z.number().describe('How long the slowest host waited for frames in flight to arrive at the gate'),
  provenPaths: z
    .int()
    .default(0)
    .describe('Ways from a port to a host on which a marker proved that no frame was left'),
  framesInFlight: z.int(),
  bytes: z.int().describe('Bytes stored on all hosts'),
  external: z
    .array(z.strictObject({ host: z.string(), port: z.string(), held: z.int(), dropped: z.int() }))
    .default([])
    .describe('Frames that came in from external ports while time stood still'),
  warnings: z.array(z.string()).default([]).describe('What could not be kept or proven, in words'),
  vms: z.array(snapshotVm),
});
export type Snapshot = z.infer<typeof snapshot>;

/** What can be changed of a snapshot; what is left out stays. */
export const snapshotEdit = z.strictObject({
  name: resourceName.nullable().optional().describe('null takes it away'),
  description: z.string().max(4096).nullable().optional().describe('null takes it away'),
  labels: z
    .record(resourceName, z.string().max(256).nullable())
    .optional()
    .describe('Labels to set; those with null are taken away'),
});
export type SnapshotEdit = z.infer<typeof snapshotEdit>;

/** Where an archive of a snapshot goes. */
export const importInput = z.strictObject({
  experiment: resourceName,
  name: resourceName.optional().describe('In place of the name that it has'),
  map: z
    .record(resourceName, resourceName)
    .optional()
    .describe(
      'Which host of the experiment takes the part of which host of the archive; the same if left out',
    ),
});
export type ImportInput = z.infer<typeof importInput>;

/** `hidden`: time goes on in the guests as if nothing had been; `advance`: their clocks are set to now. */
export const restoreClock = z.enum(['hidden', 'advance']);
export type RestoreClock = z.infer<typeof restoreClock>;

export const restoreInput = z.strictObject({
  replace: z.boolean().default(false).describe('Destroy VMs of the experiment that are still running'),
  verify: z.boolean().default(true).describe('Recompute the checksums of RAM before anything runs'),
  vms: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe('Only these VMs of the snapshot; all if left out'),
  map: z
    .record(resourceName, resourceName)
    .optional()
    .describe('Which host of the experiment takes the VMs of which host of the snapshot'),
  paused: z.boolean().default(false).describe('Leave time stopped; resume the experiment to go on'),
  clock: restoreClock.default('hidden'),
  dryRun: z.boolean().default(false).describe('Check everything, touch nothing'),
});
export type RestoreInput = z.infer<typeof restoreInput>;

/** What became of the guests' clocks. */
export const restoredClock = z.strictObject({
  mode: restoreClock,
  elapsedMs: z.number().describe('Real time from the moment of the snapshot to its return'),
  advancedMs: z
    .number()
    .describe('How far the guests were set ahead: the largest of any VM; 0 where time is hidden'),
  behindMs: z
    .number()
    .nullable()
    .describe(
      'How far their clocks fall short of now: what passed while they were loaded; null where time is hidden',
    ),
});
export type RestoredClock = z.infer<typeof restoredClock>;

export const restoreResult = z.strictObject({
  snapshot: snapshotId,
  durationMs: z
    .number()
    .describe('From the request to the last VM running; until all are loaded, where time stays stopped'),
  vms: z.int(),
  framesDelivered: z
    .int()
    .describe(
      'Frames in flight of the snapshot that reached their VMs; what these send from then on is not counted',
    ),
  dryRun: z.boolean().default(false).describe('It was only checked; nothing was touched'),
  paused: z.boolean().default(false).describe('Time stays stopped until the experiment is resumed'),
  destroyed: z
    .array(z.strictObject({ host: z.string(), vm: z.string() }))
    .default([])
    .describe('VMs that ran and were destroyed, or would be'),
  clock: restoredClock.nullable().default(null).describe('Null of a dry run'),
  warnings: z.array(z.string()).default([]).describe('What is not as it was, in words'),
});
export type RestoreResult = z.infer<typeof restoreResult>;

export const verifyResult = z.strictObject({
  snapshot: snapshotId,
  ok: z.boolean(),
  bytes: z.int().describe('Bytes checked'),
  problems: z.array(z.string()),
});
export type VerifyResult = z.infer<typeof verifyResult>;

/** A frame in flight as a snapshot keeps it. */
export const storedFrame = z.strictObject({
  host: z.string(),
  vm: z.string(),
  tap: z.string(),
  offsetNs: z.int().describe("Arrival at the VM's port, counted from the VM's stop"),
  length: z.int(),
  data: z.base64(),
});
export type StoredFrame = z.infer<typeof storedFrame>;

export const progress = z.strictObject({
  step: z.string(),
  message: z.string(),
  doneBytes: z.int().optional(),
  totalBytes: z.int().optional(),
});
export type Progress = z.infer<typeof progress>;

export const problem = z.strictObject({
  type: z.string().describe('Stable URI reference of the kind of problem: /problems/{code}'),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: errorCode,
  host: z.string().optional(),
  vm: z.string().optional(),
  port: z.string().optional(),
  problems: z.array(z.string()).optional(),
});
export type Problem = z.infer<typeof problem>;

export const operationKind = z.enum([
  'snapshot',
  'restore',
  'fork',
  'verify',
  'pause',
  'resume',
  'delete',
  'prune',
  'export',
  'import',
]);
export type OperationKind = z.infer<typeof operationKind>;

export const operation = z.strictObject({
  id: z.string(),
  kind: operationKind,
  experiment: z.string().nullable(),
  snapshot: snapshotId.nullable(),
  state: z.enum(['running', 'succeeded', 'failed', 'cancelled']),
  startedAt: z.iso.datetime(),
  endedAt: z.iso.datetime().nullable(),
  progress: progress.nullable().describe('The newest progress'),
  result: z.union([snapshot, restoreResult, forkResult, resumeResult, verifyResult, pruneResult]).nullable(),
  error: problem.nullable(),
});
export type Operation = z.infer<typeof operation>;

/** One server-sent event of an operation; `id` counts up from 1 so that a client can go on after a break. */
export const operationEvent = z.strictObject({
  id: z.int(),
  type: z.enum(['progress', 'ended']),
  at: z.iso.datetime(),
  progress: progress.optional(),
  operation: operation.optional(),
});
export type OperationEvent = z.infer<typeof operationEvent>;

export const health = z.strictObject({
  status: z.literal('ok'),
  version: z.string(),
  uptimeS: z.number(),
  experiments: z.int(),
  operationsRunning: z.int(),
});

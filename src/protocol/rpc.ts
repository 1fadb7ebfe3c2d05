import { z } from 'zod';

import { placement, tunnelKey } from './fork.ts';
import { instantNs } from './instant.ts';
import { snapshotId } from './names.ts';
import { compression, errorCode, experimentPort, externalFrames, restoreClock } from './resources.ts';
import { methodChoice, saveMethod, vm } from './vm.ts';

/**
 * The RPC between the controller and its agents: JSON-RPC 2.0 over the agent's stdin and stdout. What each call
 * does, and in which order they come, is told in docs/protocol.md. All instants are on CLOCK_MONOTONIC of the
 * agent's host.
 */
export const protocolVersion = 1;

/** Names one run of a barrier; every call of the run carries it, so that a late call cannot hit a later run. */
const barrierId = z.string().min(1);
const barrierOnly = z.strictObject({ barrier: barrierId });
const nothing = z.strictObject({});

export const vmStop = z.strictObject({ name: z.string(), stoppedAtNs: instantNs });
export type VmStop = z.infer<typeof vmStop>;
export const vmResume = z.strictObject({ name: z.string(), resumedAtNs: instantNs });
export type VmResume = z.infer<typeof vmResume>;

export const cutReport = z.strictObject({
  wakeLatenessNs: z.int().describe('How late the barrier thread woke'),
  gateClosedAtNs: instantNs,
  realtime: z.boolean().describe('Whether the barrier thread had real-time priority'),
  framesFromRings: z
    .int()
    .describe('Frames that a VM had not read from its tap in time; the agent took them over'),
  vms: z.array(vmStop),
});
export type CutReport = z.infer<typeof cutReport>;

/** What a host whose CLOCK_REALTIME is kept (by chrony, ntpd, phc2sys) says of UTC. */
const utcReading = z.strictObject({
  aheadNs: instantNs.describe('UTC minus its CLOCK_MONOTONIC'),
  errorNs: z.number().describe('By how much that may be wrong'),
});
export type UtcReading = z.infer<typeof utcReading>;

/** A VM's port as the other hosts may reach it: a source and an addressee of markers (docs/protocol.md#markers). */
export const armedPort = z.strictObject({
  vm: z.string(),
  tap: z.string(),
  mac: z.string(),
  bridge: z.string().nullable(),
  vlan: z.int().nullable().describe('Of an access port'),
});
export type ArmedPort = z.infer<typeof armedPort>;

/** By host, addresses or ports that are on it: at cluster scale what markers need is most of what is said. */
const namesByHost = z.record(z.string(), z.array(z.string()));
export type NamesByHost = z.infer<typeof namesByHost>;

/** Where a marker comes from. */
export const markerSource = z.strictObject({ host: z.string(), tap: z.string() });
export type MarkerSource = z.infer<typeof markerSource>;

export const drainReport = z.strictObject({
  waitedMs: z.number(),
  markers: z.strictObject({
    expected: z.int().describe('Paths that were seen to work before the cut, and are flushed by markers'),
    waitedMs: z.number().describe('Until the last of them had come'),
  }),
  frames: z.array(z.strictObject({ vm: z.string(), count: z.int() })),
  backlog: z.array(z.strictObject({ link: z.string(), qdisc: z.string(), peakPackets: z.int() })),
});
export type DrainReport = z.infer<typeof drainReport>;

export const vmSave = z.strictObject({
  name: z.string(),
  method: saveMethod,
  stateBytes: z.int(),
  stateNs: z.int().describe('How long writing the device state took'),
  forkNs: z.int().nullable(),
});

/** How the frames that were held, or those of the snapshot, came back to their VMs; lateness is against the instant each was due. */
export const settleReport = z.strictObject({
  framesReplayed: z.int(),
  replayLatenessNs: z.strictObject({ median: z.int(), p99: z.int(), max: z.int() }).nullable(),
  external: z
    .array(z.strictObject({ port: z.string(), held: z.int(), dropped: z.int() }))
    .describe('What came in from ports that are not VMs while time stood still'),
  warnings: z.array(z.string()),
});
export type SettleReport = z.infer<typeof settleReport>;

export const storeReport = z.strictObject({
  bytes: z.int().describe('Bytes that the snapshot takes on this host'),
  vms: z.array(z.strictObject({ name: z.string(), ramBytes: z.int(), storedBytes: z.int() })),
});
export type StoreReport = z.infer<typeof storeReport>;

/** What the controller knows and the agents do not: it goes into each host's manifest at commit. */
export const commitParams = z.strictObject({
  barrier: barrierId,
  snapshot: snapshotId,
  experiment: z.string(),
  createdAt: z.iso.datetime(),
});

/** How RAM is stored. */
export const ramStorage = z.strictObject({
  compression,
  level: z.int().describe('Of the compression'),
  maxBytesPerSecond: z.int().nonnegative().describe('That the host writes while time goes on; 0: no limit'),
});
export type RamStorage = z.infer<typeof ramStorage>;

export const agentContract = {
  methods: {
    hello: {
      params: z.strictObject({
        protocolVersion: z.int(),
        controllerVersion: z.string(),
        host: z.string().describe('Name of the host in the experiment, for messages'),
      }),
      result: z.strictObject({
        protocolVersion: z.int(),
        agentVersion: z.string(),
        hostname: z.string(),
        kernel: z.string(),
        nodeVersion: z.string(),
        recovered: z
          .string()
          .nullable()
          .describe('What an earlier agent had left half-done and this one put right'),
      }),
    },
    clock: {
      params: nothing,
      result: z.strictObject({
        monotonicNs: instantNs,
        utc: utcReading.nullable().describe('Null: nobody keeps its CLOCK_REALTIME'),
      }),
    },
    discover: {
      params: z.strictObject({ vms: z.array(z.string()).nullable() }),
      result: z.strictObject({ vms: z.array(vm) }),
    },
    ports: {
      params: z.strictObject({ vms: z.array(z.string()).nullable() }),
      result: z.strictObject({ ports: z.array(experimentPort.omit({ host: true })) }),
    },

    arm: {
      params: z.strictObject({
        barrier: barrierId,
        experiment: z.string(),
        snapshot: snapshotId.nullable().describe('null: time is only stopped, nothing is saved'),
        vms: z.array(z.string()).nullable(),
        method: methodChoice,
        parent: snapshotId.nullable().describe('Of what it holds already, nothing is stored again'),
        ram: ramStorage,
        leaseMs: z.int().positive(),
        frameBufferBytes: z.int().positive(),
        externalPorts: z.array(z.string()).describe('Interfaces that lead out of the experiment'),
        externalFrames: externalFrames,
      }),
      result: z.strictObject({
        ports: z.array(armedPort).describe('To which markers can be addressed: a few of each segment'),
        warnings: z.array(z.string()).describe('What this snapshot will not keep, in words'),
      }),
    },
    probe: {
      params: z.strictObject({
        barrier: barrierId,
        host: z.string().describe('Name of this host, as the markers carry it'),
        targets: namesByHost.describe('Addresses that markers are sent to: of ports of VMs, by their host'),
      }),
      result: z.strictObject({
        sent: namesByHost.describe(
          'By host that markers are sent to, the ports that send them: those whose switch knows the way',
        ),
      }),
    },
    listen: {
      params: z.strictObject({
        barrier: barrierId,
        sources: namesByHost.describe('By host that sends markers to this one, its ports that do'),
        boundMs: z.number(),
      }),
      result: z.strictObject({ missing: z.array(markerSource) }),
    },
    schedule: {
      params: z.strictObject({ barrier: barrierId, atNs: instantNs }),
      result: z.strictObject({
        accepted: z.boolean().describe('Whether there was still time; otherwise nothing was scheduled'),
      }),
    },
    /** Gives up the scheduled cut; fails if it has begun. */
    recall: { params: barrierOnly, result: nothing },
    /** Waits for the cut at that instant; schedules it if nothing is. */
    cut: { params: z.strictObject({ barrier: barrierId, atNs: instantNs }), result: cutReport },
    drain: {
      params: z.strictObject({ barrier: barrierId, boundMs: z.number(), quietMs: z.number() }),
      result: drainReport,
    },
    save: { params: barrierOnly, result: z.strictObject({ vms: z.array(vmSave) }) },
    resume: {
      params: z.strictObject({
        barrier: barrierId,
        vms: z.array(z.strictObject({ name: z.string(), atNs: instantNs })),
      }),
      result: z.strictObject({ vms: z.array(vmResume) }),
    },
    settle: { params: barrierOnly, result: settleReport },
    store: { params: barrierOnly, result: storeReport },
    commit: { params: commitParams, result: z.strictObject({ manifestSha256: z.string(), bytes: z.int() }) },
    abort: {
      params: z.strictObject({ barrier: barrierId, reason: z.string() }),
      result: z.strictObject({
        outcome: z.string().describe('In which condition the host is left, in words'),
      }),
    },
    renew: { params: barrierOnly, result: nothing },

    restoreCheck: {
      params: z.strictObject({
        barrier: barrierId,
        snapshot: snapshotId,
        manifestSha256: z.string(),
        replace: z.boolean(),
        verify: z.boolean(),
        vms: z.array(z.string()).nullable().describe('Only these; null: all'),
        clock: restoreClock,
        moved: z.boolean().describe('It was taken on another host, whose switches are not made again here'),
        placement: placement.nullable().describe('Of a fork: where it is put; null: in place'),
        leaseMs: z.int().positive(),
        frameBufferBytes: z.int().positive(),
      }),
      result: z.strictObject({
        running: z.array(z.string()).describe('VMs that would be destroyed'),
        vms: z.array(z.string()).describe('VMs that would be restored'),
        warnings: z.array(z.string()).describe('What will not be as it was, in words'),
      }),
    },
    restorePrepare: {
      params: z.strictObject({
        barrier: barrierId,
        elapsedNs: instantNs.describe('Real time since the moment of the snapshot, the same for all hosts'),
      }),
      result: z.strictObject({
        vms: z.array(z.string()),
        ports: z.array(armedPort).describe('As of `arm`'),
        loadMs: z
          .number()
          .describe(
            'From the first thing done to VMs that run until all are paused with the state of the snapshot',
          ),
        advancedNs: instantNs.describe('How far the clocks of guests were set ahead: the largest of any VM'),
      }),
    },
    restoreDrain: {
      params: z.strictObject({
        barrier: barrierId,
        boundMs: z.number(),
        quietMs: z.number(),
        alone: z
          .boolean()
          .describe('No VM of another host was ended or stopped: it counts since when this host is quiet'),
      }),
      result: z.strictObject({
        waitedMs: z.number(),
        discarded: z.int().describe('Frames of the time line that was given up'),
        frames: z.int().describe('Frames in flight of the snapshot, lined up'),
      }),
    },

    forkCheck: {
      params: z.strictObject({ snapshot: snapshotId, manifestSha256: z.string() }),
      result: z.strictObject({
        forks: z.array(z.int()).describe('Numbers of forks that this host has something of'),
        tunnelKeys: z.array(tunnelKey).describe('Keys of the tunnels of the snapshot'),
        usedKeys: z.array(tunnelKey).describe('Keys of all tunnels of this host'),
        warnings: z.array(z.string()).describe('What a fork is not joined to, in words'),
      }),
    },
    forkRemove: {
      params: z.strictObject({ fork: z.int().positive() }),
      result: z.strictObject({ vms: z.array(z.string()).describe('VMs that ran and were ended') }),
    },

    verify: {
      params: z.strictObject({ snapshot: snapshotId, manifestSha256: z.string().nullable() }),
      result: z.strictObject({ ok: z.boolean(), bytes: z.int(), problems: z.array(z.string()) }),
    },
    hasPart: {
      params: z.strictObject({ snapshot: snapshotId, manifestSha256: z.string() }),
      result: z.strictObject({ isHere: z.boolean().describe('Of this host or copied from another one') }),
    },
    removeSnapshot: { params: z.strictObject({ snapshot: snapshotId }), result: nothing },
    frames: {
      params: z.strictObject({ snapshot: snapshotId }),
      result: z.strictObject({
        frames: z.array(
          z.strictObject({ vm: z.string(), tap: z.string(), offsetNs: z.int(), data: z.base64() }),
        ),
      }),
    },
  },
  notifications: {
    log: {
      params: z.strictObject({
        level: z.enum(['debug', 'info', 'warn', 'error']),
        message: z.string(),
        fields: z.record(z.string(), z.unknown()),
      }),
    },
    progress: {
      params: z.strictObject({
        barrier: barrierId,
        step: z.string(),
        doneBytes: z.int(),
        totalBytes: z.int(),
      }),
    },
    /** The agent gave up a barrier by itself: its lease ran out, a VM died, the network changed, a buffer is full. */
    barrierLost: {
      params: z.strictObject({
        barrier: barrierId,
        reason: z.string(),
        code: errorCode,
        port: z.string().nullable(),
      }),
    },
  },
} as const;

export type AgentContract = typeof agentContract;
export type AgentMethod = keyof AgentContract['methods'];
export type AgentParams<M extends AgentMethod> = z.output<AgentContract['methods'][M]['params']>;
export type AgentResult<M extends AgentMethod> = z.output<AgentContract['methods'][M]['result']>;

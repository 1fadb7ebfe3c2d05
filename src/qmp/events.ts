import type { Nothing } from './commands.ts';
import type { JsonObject } from './json.ts';
import type { Status as MigrationStatus } from './migration-types.ts';

export type ShutdownCause =
  | 'none'
  | 'host-error'
  | 'host-qmp-quit'
  | 'host-qmp-system-reset'
  | 'host-signal'
  | 'host-ui'
  | 'guest-shutdown'
  | 'guest-reset'
  | 'guest-panic'
  | 'subsystem-reset'
  | 'snapshot-load';

interface BlockJob {
  readonly type: string;
  /** The job's id. */
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly speed: number;
}

/** The events whose data is typed, after QEMU 7.2's own schema. */
export interface QmpEvents {
  STOP: Nothing;
  RESUME: Nothing;
  SUSPEND: Nothing;
  WAKEUP: Nothing;
  POWERDOWN: Nothing;
  SHUTDOWN: { readonly guest: boolean; readonly reason: ShutdownCause };
  RESET: { readonly guest: boolean; readonly reason: ShutdownCause };
  WATCHDOG: { readonly action: string };
  GUEST_PANICKED: { readonly action: 'pause' | 'poweroff' | 'run'; readonly info?: JsonObject };
  GUEST_CRASHLOADED: { readonly action: 'pause' | 'poweroff' | 'run'; readonly info?: JsonObject };
  MIGRATION: { readonly status: MigrationStatus };
  MIGRATION_PASS: { readonly pass: number };
  BLOCK_IO_ERROR: {
    readonly device: string;
    readonly 'node-name'?: string;
    readonly operation: 'read' | 'write';
    readonly action: 'ignore' | 'report' | 'stop';
    readonly nospace?: boolean;
    readonly reason: string;
  };
  BLOCK_JOB_COMPLETED: BlockJob & { readonly error?: string };
  BLOCK_JOB_CANCELLED: BlockJob;
  BLOCK_JOB_READY: BlockJob;
  BLOCK_JOB_PENDING: { readonly type: string; readonly id: string };
  BLOCK_JOB_ERROR: {
    readonly device: string;
    readonly operation: 'read' | 'write';
    readonly action: 'ignore' | 'report' | 'stop';
  };
  JOB_STATUS_CHANGE: { readonly id: string; readonly status: string };
  NIC_RX_FILTER_CHANGED: { readonly name?: string; readonly path: string };
  RTC_CHANGE: { readonly offset: number; readonly 'qom-path': string };
  DEVICE_DELETED: { readonly device?: string; readonly path: string };
}

/** An event of the table, or any other by its name. */
export type QmpEventName = keyof QmpEvents | (string & Record<never, never>);

export interface QmpEvent<N extends QmpEventName = string> {
  readonly name: N;
  readonly data: N extends keyof QmpEvents ? QmpEvents[N] : JsonObject;
  /** CLOCK_REALTIME of the QEMU process, in nanoseconds (of µs resolution); −1n where QEMU could not tell. */
  readonly timestampNs: bigint;
}

/** Narrows an event by its name. */
export function isEvent<N extends QmpEventName>(event: QmpEvent, name: N): event is QmpEvent & QmpEvent<N> {
  return event.name === name;
}

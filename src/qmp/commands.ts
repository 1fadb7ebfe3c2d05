import type { JsonObject, JsonValue } from './json.ts';
import type * as Migration from './migration-types.ts';

/** Commands without arguments, or whose answer is the empty object, say so with this. */
export type Nothing = Record<string, never>;

/** RunState of qapi/run-state.json; other versions of QEMU may add to it. */
export type RunState =
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';

export interface StatusInfo {
  readonly running: boolean;
  readonly status: RunState;
}

export interface MachineInfo {
  readonly name: string;
  readonly alias?: string;
  readonly 'is-default'?: boolean;
  readonly 'cpu-max': number;
  readonly deprecated: boolean;
  readonly 'default-cpu-type'?: string;
  /** The id that `-machine memory-backend=` replaces. */
  readonly 'default-ram-id'?: string;
}

export interface CpuDefinition {
  readonly name: string;
  /** What of it the accelerator does not give on this host; left out by architectures that do not know. */
  readonly 'unavailable-features'?: readonly string[];
}

export interface MemoryBackend {
  readonly id?: string;
  readonly size: number;
  readonly merge: boolean;
  readonly dump: boolean;
  readonly prealloc: boolean;
  readonly share: boolean;
  readonly reserve?: boolean;
  readonly 'host-nodes': readonly number[];
  readonly policy: 'default' | 'preferred' | 'bind' | 'interleave';
}

/** Of a device of another type than "dimm" other members are told. */
export interface MemoryDevice {
  readonly type: 'dimm' | 'nvdimm' | 'virtio-pmem' | 'virtio-mem' | 'sgx-epc';
  readonly data: {
    readonly id?: string;
    readonly addr: number;
    readonly size: number;
    readonly slot: number;
    readonly node: number;
    /** A QOM path, such as "/objects/ram1". */
    readonly memdev: string;
    readonly hotplugged: boolean;
    readonly hotpluggable: boolean;
  };
}

export interface BlockImage {
  readonly filename: string;
  readonly format: string;
  readonly 'virtual-size': number;
  readonly 'actual-size'?: number;
  readonly encrypted?: boolean;
  readonly 'format-specific'?: { readonly type: string; readonly data: JsonObject };
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
  readonly 'backing-image'?: BlockImage;
}

export interface BlockDevice {
  readonly device: string;
  readonly qdev?: string;
  readonly type: string;
  readonly removable: boolean;
  readonly locked: boolean;
  readonly inserted?: {
    readonly file: string;
    readonly 'node-name'?: string;
    readonly ro: boolean;
    readonly drv: string;
    readonly backing_file?: string;
    readonly backing_file_depth: number;
    readonly encrypted: boolean;
    readonly detect_zeroes: 'off' | 'on' | 'unmap';
    readonly cache: { readonly writeback: boolean; readonly direct: boolean; readonly 'no-flush': boolean };
    readonly image: BlockImage;
  };
  readonly 'io-status'?: 'ok' | 'failed' | 'nospace';
}

/** Of one node of the block graph. */
export interface NamedBlockNode {
  readonly 'node-name': string;
  readonly drv: string;
  readonly file: string;
  readonly ro: boolean;
}

export interface BlockJobInfo {
  readonly type: string;
  /** The job's id. */
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly status: string;
}

export interface RxFilter {
  /** The device's id. */
  readonly name: string;
  readonly 'main-mac': string;
  readonly promiscuous: boolean;
  readonly multicast: 'normal' | 'none' | 'all';
  readonly unicast: 'normal' | 'none' | 'all';
  readonly vlan: 'normal' | 'none' | 'all';
  readonly 'broadcast-allowed': boolean;
  readonly 'vlan-table': readonly number[];
  readonly 'unicast-table': readonly string[];
  readonly 'multicast-table': readonly string[];
}

export interface CpuInfo {
  readonly 'cpu-index': number;
  readonly 'qom-path': string;
  /** The vCPU thread's id on the host. */
  readonly 'thread-id': number;
  readonly target: string;
}

export interface FdSet {
  readonly 'fdset-id': number;
  readonly fds: readonly { readonly fd: number; readonly opaque?: string }[];
}

interface Entry<Args extends object, Result> {
  readonly args: Args;
  readonly result: Result;
}

/**
 * The commands whose arguments and answers are typed, after QEMU 7.2's own schema (`query-qmp-schema`). Answers
 * are trusted to be as the schema says; members that no version is without are required.
 */
export interface QmpCommands {
  'query-status': Entry<Nothing, StatusInfo>;
  'query-version': Entry<
    Nothing,
    { readonly qemu: { major: number; minor: number; micro: number }; readonly package: string }
  >;
  'query-name': Entry<Nothing, { readonly name?: string }>;
  'query-uuid': Entry<Nothing, { readonly UUID: string }>;
  'query-machines': Entry<Nothing, readonly MachineInfo[]>;
  'query-cpu-definitions': Entry<Nothing, readonly CpuDefinition[]>;
  'query-current-machine': Entry<Nothing, { readonly 'wakeup-suspend-support': boolean }>;
  'query-kvm': Entry<Nothing, { readonly enabled: boolean; readonly present: boolean }>;
  'query-memdev': Entry<Nothing, readonly MemoryBackend[]>;
  'query-memory-devices': Entry<Nothing, readonly MemoryDevice[]>;
  'query-block': Entry<Nothing, readonly BlockDevice[]>;
  'query-named-block-nodes': Entry<{ readonly flat?: boolean }, readonly NamedBlockNode[]>;
  'query-block-jobs': Entry<Nothing, readonly BlockJobInfo[]>;
  'blockdev-add': Entry<JsonObject & { readonly driver: string; readonly 'node-name': string }, Nothing>;
  'blockdev-del': Entry<{ readonly 'node-name': string }, Nothing>;
  'block-stream': Entry<
    {
      readonly device: string;
      readonly bottom?: string;
      readonly 'job-id'?: string;
      readonly speed?: number;
    },
    Nothing
  >;
  'block-job-cancel': Entry<{ readonly device: string; readonly force?: boolean }, Nothing>;
  'snapshot-load': Entry<
    {
      readonly 'job-id': string;
      readonly tag: string;
      readonly vmstate: string;
      readonly devices: readonly string[];
    },
    Nothing
  >;
  'query-jobs': Entry<
    Nothing,
    readonly { readonly id: string; readonly status: string; readonly error?: string }[]
  >;
  'job-dismiss': Entry<{ readonly id: string }, Nothing>;
  'qom-list': Entry<{ readonly path: string }, readonly { readonly name: string; readonly type: string }[]>;
  'query-rx-filter': Entry<{ readonly name?: string }, readonly RxFilter[]>;
  'query-cpus-fast': Entry<Nothing, readonly CpuInfo[]>;
  'query-fdsets': Entry<Nothing, readonly FdSet[]>;
  'query-qmp-schema': Entry<Nothing, readonly (JsonObject & { 'meta-type': string; name: string })[]>;
  'query-commands': Entry<Nothing, readonly { readonly name: string }[]>;
  stop: Entry<Nothing, Nothing>;
  cont: Entry<Nothing, Nothing>;
  quit: Entry<Nothing, Nothing>;
  system_powerdown: Entry<Nothing, Nothing>;
  'human-monitor-command': Entry<{ readonly 'command-line': string; readonly 'cpu-index'?: number }, string>;
  'xen-save-devices-state': Entry<{ readonly filename: string; readonly live?: boolean }, Nothing>;
  migrate: Entry<{ readonly uri: string; readonly resume?: boolean }, Nothing>;
  'migrate-incoming': Entry<{ readonly uri: string }, Nothing>;
  migrate_cancel: Entry<Nothing, Nothing>;
  'migrate-set-capabilities': Entry<
    { readonly capabilities: readonly Migration.CapabilityStatus[] },
    Nothing
  >;
  'migrate-set-parameters': Entry<Migration.Parameters, Nothing>;
  'query-migrate': Entry<Nothing, Migration.Info>;
  'query-migrate-capabilities': Entry<Nothing, readonly Migration.CapabilityStatus[]>;
  'query-migrate-parameters': Entry<Nothing, Migration.Parameters>;
  /** The bytes of these two must carry a descriptor (SCM_RIGHTS); see the README. */
  'add-fd': Entry<
    { readonly 'fdset-id'?: number; readonly opaque?: string },
    { readonly 'fdset-id': number; readonly fd: number }
  >;
  getfd: Entry<{ readonly fdname: string }, Nothing>;
  closefd: Entry<{ readonly fdname: string }, Nothing>;
  'remove-fd': Entry<{ readonly 'fdset-id': number; readonly fd?: number }, Nothing>;
  transaction: Entry<
    {
      readonly actions: readonly { readonly type: string; readonly data: object }[];
      readonly properties?: object;
    },
    Nothing
  >;
}

/** A command of the table, or any other by its name. */
export type QmpCommandName = keyof QmpCommands | (string & Record<never, never>);

export type QmpArguments<N extends QmpCommandName> = N extends keyof QmpCommands
  ? QmpCommands[N] extends Entry<infer Args extends object, unknown>
    ? Args
    : never
  : object;

export type QmpResult<N extends QmpCommandName> = N extends keyof QmpCommands
  ? QmpCommands[N] extends Entry<object, infer Result>
    ? Result
    : never
  : JsonValue;

/** qapi/migration.json, as far as QEMU 7.2 has it. */
export type Capability =
  | 'xbzrle'
  | 'auto-converge'
  | 'events'
  | 'postcopy-ram'
  | 'release-ram'
  | 'return-path'
  | 'pause-before-switchover'
  | 'multifd'
  | 'dirty-bitmaps'
  | 'late-block-activate'
  | 'x-ignore-shared'
  | 'validate-uuid'
  | 'background-snapshot'
  | (string & Record<never, never>);

export interface CapabilityStatus {
  readonly capability: Capability;
  readonly state: boolean;
}

export type Status =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device'
  | 'wait-unplug';

/** Times in ms; `max-bandwidth` in bytes per second; `downtime-limit` in ms. */
export interface Parameters {
  readonly 'announce-initial'?: number;
  readonly 'announce-max'?: number;
  readonly 'announce-rounds'?: number;
  readonly 'announce-step'?: number;
  readonly 'cpu-throttle-initial'?: number;
  readonly 'cpu-throttle-increment'?: number;
  readonly 'max-bandwidth'?: number;
  readonly 'downtime-limit'?: number;
  readonly 'multifd-channels'?: number;
  readonly 'multifd-compression'?: string;
  readonly 'xbzrle-cache-size'?: number;
}

/** Sizes in bytes. */
export interface RamProgress {
  readonly transferred: number;
  readonly remaining: number;
  readonly total: number;
  readonly duplicate: number;
  readonly normal: number;
  readonly 'normal-bytes': number;
  readonly 'dirty-pages-rate': number;
  readonly 'dirty-sync-count': number;
  readonly 'page-size': number;
  /** Megabits per second. */
  readonly mbps: number;
}

/** Times in ms. */
export interface Info {
  readonly status?: Status;
  readonly ram?: RamProgress;
  readonly 'total-time'?: number;
  readonly 'expected-downtime'?: number;
  readonly downtime?: number;
  readonly 'setup-time'?: number;
  readonly 'error-desc'?: string;
  readonly 'blocked-reasons'?: readonly string[];
}

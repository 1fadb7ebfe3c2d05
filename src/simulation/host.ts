import type { ArmedPort, UtcReading } from '../protocol/rpc.ts';
import type { Time } from '../protocol/time.ts';

/** What a simulated agent reports of what it does, for whoever watches. */
export interface HostObserver {
  armed(barrier: string, host: string): void;
  cut(barrier: string, host: string, snapshot: string | null): void;
  /** All VMs of the host stand still. */
  stopped(barrier: string, host: string): void;
  drained(barrier: string, host: string): void;
  saved(barrier: string, host: string): void;
  /** By the controller's call, and not by an abort. */
  resumed(barrier: string, host: string): void;
  gaveUp(barrier: string, host: string): void;
}

/** A host of the simulation: its VMs, its gate and its disk outlive the agents that act on them. */
export class SimulatedHost {
  readonly name: string;
  readonly vms: readonly string[];
  readonly ports: readonly ArmedPort[];
  /** The host's clock. */
  readonly time: Time;
  /** What it says of UTC; null: nothing. */
  readonly utc: () => UtcReading | null;
  /** VMs that stand still. */
  readonly stopped = new Set<string>();
  /** Snapshots on its disk. */
  readonly parts = new Map<string, 'partial' | 'sealed'>();
  gate: 'open' | 'hold' = 'open';
  /** The barrier that has the VMs' QMP sockets; null: none. */
  taken: string | null = null;
  /** How many times as long everything takes. */
  slowness = 1;

  constructor(index: number, vmCount: number, time: Time, utc: () => UtcReading | null = () => null) {
    this.name = `h${index}`;
    this.time = time;
    this.utc = utc;
    this.vms = Array.from({ length: vmCount }, (_, vm) => `vm${index}-${vm}`);
    this.ports = this.vms.map((vm, place) => ({
      vm,
      tap: `tap${place}`,
      mac: macOf(index, place),
      bridge: 'br-int',
      vlan: 1 + (place % 4),
    }));
  }

  get runs(): boolean {
    return this.stopped.size === 0 && this.gate === 'open';
  }

  /** Every VM goes on, every gate opens, and what was being stored goes. */
  thaw(): void {
    this.stopped.clear();
    this.gate = 'open';
    this.taken = null;
    for (const [snapshot, state] of this.parts) if (state === 'partial') this.parts.delete(snapshot);
  }
}

const hex = (value: number) => (value & 0xff).toString(16).padStart(2, '0');
const macOf = (host: number, vm: number) => `52:54:${hex(host >> 8)}:${hex(host)}:${hex(vm >> 8)}:${hex(vm)}`;

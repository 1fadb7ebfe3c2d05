import type { ArmedPort, MarkerSource, NamesByHost } from '../../../src/protocol/rpc.ts';
import type { SwitchPort } from '../../../src/protocol/vm.ts';

/** What the test asks of the process that plays a host's agent. All values pass structured cloning. */

export interface VmToHold {
  readonly name: string;
  /** Its tap. */
  readonly device: string;
  readonly mac: string;
  readonly switchPort: SwitchPort;
  /** Path of its endpoint's control socket. */
  readonly control: string;
}

export interface Stop {
  readonly vm: string;
  readonly atNs: bigint;
}

export interface ArmParams {
  /** One for each snapshot or restore. */
  readonly barrier: string;
  /** As markers name it. */
  readonly host: string;
  readonly vms: readonly VmToHold[];
  /** A new file, for frames that endpoints leave in their rings. */
  readonly ringFile: string;
  /** Whether the gate holds from the start. */
  readonly hold: boolean;
}

export interface HostCalls {
  /** Puts the gate on the taps of the VMs. */
  arm: { params: ArmParams; result: { ports: ArmedPort[] } };
  probe: { params: { targets: NamesByHost }; result: NamesByHost };
  listen: { params: { sources: NamesByHost }; result: { missing: MarkerSource[] } };
  cut: { params: { atNs: bigint }; result: { stops: Stop[] } };
  /** Waits until nothing is in flight towards this host's VMs. */
  drain: { params: null; result: null };
  /** Endpoints and frames, into a directory that exists. */
  save: { params: { directory: string }; result: { frames: number } };
  resume: { params: { instants: readonly Stop[] }; result: null };
  /** When every frame is back: checks that all are accounted for, and takes the gate off. */
  settle: { params: null; result: null };
  /** Lets go of VMs that are gone, and of what is held for them. */
  abandon: { params: null; result: null };
  /** Closes taps that nobody has open: what is sent to them is dropped. */
  plug: { params: { devices: readonly string[] }; result: null };
  /** Drops what comes from an abandoned time line; then the frames of a snapshot line up. */
  flush: { params: { directory: string }; result: null };
}

export type HostCall = keyof HostCalls;

export interface HostRequest<Call extends HostCall = HostCall> {
  readonly number: number;
  readonly call: Call;
  readonly params: HostCalls[Call]['params'];
}

export interface HostReply {
  readonly number: number;
  readonly result?: unknown;
  readonly error?: string;
}

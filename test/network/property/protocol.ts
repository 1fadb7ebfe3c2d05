/** What the test asks of the process that plays a host's agent. All values pass structured cloning. */

export interface VmToHold {
  readonly name: string;
  /** Its tap. */
  readonly device: string;
  /** Path of its endpoint's control socket. */
  readonly control: string;
}

export interface Stop {
  readonly vm: string;
  readonly atNs: bigint;
}

export interface HostCalls {
  /** Puts the gate on the taps of the VMs; `directory`: holding, with the frames of that snapshot lined up. */
  arm: { params: { vms: readonly VmToHold[]; directory: string | null }; result: null };
  cut: { params: { atNs: bigint }; result: { stops: Stop[]; framesFromRings: number } };
  /** Waits until nothing is in flight towards this host's VMs. */
  drain: { params: null; result: { heldFrames: number } };
  /** Endpoints and frames, into a directory that exists. */
  save: { params: { directory: string }; result: { frames: number } };
  resume: { params: { instants: readonly Stop[] }; result: null };
  /** When every frame is back: checks that all are accounted for, and takes the gate off. */
  settle: { params: null; result: { delivered: number } };
  /** Lets go of VMs that are gone, and of what is held for them. */
  abandon: { params: null; result: null };
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

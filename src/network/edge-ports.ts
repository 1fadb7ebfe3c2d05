import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import { Gate } from '../native/gate.ts';
import type { GateIdentity, ReplayReport } from '../native/gate.ts';
import { attachEdgeProgram, detachEdgeProgram, heldMtuMax, probeEdge } from '../native/xdp.ts';

/** A device that leads out of the experiment. */
export interface ExternalPort {
  readonly name: string;
  readonly ifindex: number;
  readonly mtu: number;
  readonly mac: string;
}

/** What becomes of frames from outside while time stands still; those that pass need no edge. */
export type EdgePolicy = 'hold' | 'drop';

/** A port of the edge as it is noted on disk, for the agent that comes after a crash. */
export interface EdgePort extends ExternalPort {
  readonly slot: number;
}

export interface EdgeCount {
  readonly port: string;
  /** Kept at the port, and let in when time went on. */
  readonly held: number;
  readonly dropped: number;
}

export interface EdgeRelease {
  /** From when on time goes on. */
  readonly liveFromNs: bigint;
  /** For how long it stood still: a frame is let in that long after it came. */
  readonly shiftNs: bigint;
}

const WORDS_A_PORT = 8;
/** Place of `dropped` in a port's words (native/gate/gate.h). */
const DROPPED = 7;

/**
 * The ports that lead out of the experiment, behind a gate of their own at their receive side.
 *
 * Invariants: a frame is at the edge, or was let in, or was dropped and counted, never two of these; while anything
 * is kept at a port, whatever comes in there joins the end of its queue. The programs keep the gate alive: a kill
 * loses nothing.
 */
export class EdgePorts {
  readonly #gate: Gate;
  readonly #policy: EdgePolicy;
  readonly #ports: readonly EdgePort[];

  private constructor(gate: Gate, policy: EdgePolicy, ports: readonly EdgePort[]) {
    this.#gate = gate;
    this.#policy = policy;
    this.#ports = ports;
  }

  /** An edge that is on no port yet. @throws StaghornError 'host-unfit' */
  static create(options: {
    ports: readonly ExternalPort[];
    policy: EdgePolicy;
    ringBytes: number;
  }): EdgePorts {
    const { ports, policy, ringBytes } = options;
    try {
      const gate = Gate.create({ slots: ports.length, ringBytes });
      return new EdgePorts(
        gate,
        policy,
        ports.map((port, slot) => ({ ...port, slot })),
      );
    } catch (error) {
      throw asStaghornError(error, 'host-unfit', 'no edge can be made: ');
    }
  }

  /** The edge that a dead process left. @throws StaghornError 'not-found' if it is gone: then it was on no port */
  static adopt(identity: GateIdentity, policy: EdgePolicy, ports: readonly EdgePort[]): EdgePorts {
    try {
      return new EdgePorts(Gate.open(identity), policy, ports);
    } catch (error) {
      throw asStaghornError(error, 'not-found', `the edge ${identity.stateMapId} is gone: `);
    }
  }

  get identity(): GateIdentity {
    return this.#gate.identity;
  }

  get policy(): EdgePolicy {
    return this.#policy;
  }

  get ports(): readonly EdgePort[] {
    return this.#ports;
  }

  /** Memory whose first 32-bit word turns the edge: 1 holds. */
  get modeWord(): ArrayBuffer {
    return this.#gate.stateMemory;
  }

  hold(): void {
    this.#gate.setMode('hold');
  }

  /** Puts the edge on every port, or on none. @throws StaghornError 'network-unfit' naming the port */
  attach(): void {
    try {
      for (const port of this.#ports) this.#attachOne(port);
    } catch (error) {
      this.#detach();
      throw error;
    }
  }

  /** What came in since the edge was made, and did not pass. */
  counts(): EdgeCount[] {
    const words = new BigUint64Array(this.#gate.stateMemory);
    return this.#ports.map(({ name, slot }) => ({
      port: name,
      held: this.#gate.counters(slot).diverted,
      dropped: Number(Atomics.load(words, (1 + slot) * WORDS_A_PORT + DROPPED)),
    }));
  }

  /** Throws StaghornError "frames-lost" if frames got in because there was no room to keep them. */
  assertKept(): void {
    const problems = this.#ports.flatMap(({ name, slot }) => {
      const { failed } = this.#gate.counters(slot);
      return failed === 0 ? [] : [`${name}: ${failed} frames from outside found no room and got in`];
    });
    if (problems.length > 0)
      throw new StaghornError('frames-lost', problems.join('; '), { context: { problems } });
  }

  /**
   * Lets in what is kept, in order, each frame as long after the resumption as it had come after the cut, and opens
   * the edge. With `signal` aborted everything is let in at once.
   * @returns in words what could not be let in
   */
  async release({ liveFromNs, shiftNs }: EdgeRelease, signal: AbortSignal): Promise<string[]> {
    const ports = this.#ports.map(({ slot, ifindex, mtu: receiveMtu }) => {
      return { slot, ifindex, receiveMtu, shiftNs, notBeforeNs: liveFromNs };
    });
    try {
      return this.#losses(await this.#gate.replay({ ports, liveFromNs, signal }));
    } catch (error) {
      throw asStaghornError(error, 'network-unfit', 'frames from outside were not all let in: ');
    }
  }

  /** Takes the edge off. @returns in words where that failed */
  close(): string[] {
    const problems = this.#detach();
    this.#gate.close();
    return problems;
  }

  #attachOne(port: EdgePort): void {
    const { name, ifindex, slot, mac, mtu } = port;
    const drop = this.#policy === 'drop';
    if (!drop && mtu > heldMtuMax) {
      const text = `external port ${name} has an MTU of ${mtu}; frames can be held there up to an MTU of ${heldMtuMax} (externalFrames "drop" and "pass" have no such limit)`;
      throw new StaghornError('network-unfit', text, { context: { port: name } });
    }
    try {
      attachEdgeProgram({ gate: this.identity, slot, ifindex, drop });
      if (!drop) probeEdge(this.identity, ifindex, mac);
    } catch (error) {
      throw new StaghornError('network-unfit', `external port ${name} cannot be held: ${reasonOf(error)}`, {
        cause: error,
        context: { port: name },
      });
    }
  }

  #detach(): string[] {
    return this.#ports.flatMap(({ name, ifindex }) => {
      try {
        detachEdgeProgram(ifindex, this.identity);
        return [];
      } catch (error) {
        return [`${name}: ${messageOf(error)}`];
      }
    });
  }

  #losses({ ports }: ReplayReport): string[] {
    return ports.flatMap(({ slot, undeliverable, missing, lastErrno }) => {
      const lost = undeliverable + missing;
      const name = this.#ports.find((port) => port.slot === slot)?.name ?? `slot ${slot}`;
      return lost === 0
        ? []
        : [`external port ${name}: ${lost} frames that were held could not be let in (errno ${lastErrno})`];
    });
  }
}

/** What the kernel's errno means here. */
function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EBUSY' || code === 'EEXIST') return 'an XDP program is on it already; take that off';
  if (code === 'ESTALE')
    return 'its frames change the processor (receive packet steering); set its rps_cpus to 0';
  if (code === 'EINVAL')
    return `this kernel cannot let frames in again (Linux 5.18 can): ${messageOf(error)}`;
  return messageOf(error);
}

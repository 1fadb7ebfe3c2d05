import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { asStaghornError } from '../../errors/index.ts';
import { monotonicNs } from '../../native/clock.ts';
import { readMacTables } from '../../network/switches/mac-table.ts';
import { MarkerLog } from '../../network/markers/log.ts';
import { chooseMarkerPaths, type MarkerPath, type MarkerPort } from '../../network/markers/paths.ts';
import { MarkerSender, repetitionsMs } from '../../network/markers/sender.ts';
import { decodeMarker, nonceBytes } from '../../network/markers/codec.ts';
import type { VmPorts } from '../../network/vm-ports.ts';
import type { AgentParams, MarkerSource, NamesByHost } from '../../protocol/rpc.ts';

const rounds = { probe: 1, last: 2 } as const;
/** As long as the others listen (src/controller/hosts/marked-paths.ts). */
const probeBoundMs = 1_000;
const lastBoundMs = 5_000;
const pollMs = 1;
const nsPerMs = 1_000_000;

/**
 * The markers of one barrier on this host: which it sends, which it has heard, and which it waits for.
 * Invariant: only what was heard while time ran is waited for when it stands still.
 */
export class MarkerExchange {
  readonly #ports: VmPorts;
  readonly #taps: readonly MarkerPort[];
  readonly #nonce: Buffer;
  readonly #log: MarkerLog;
  readonly #sentNs = new Map<number, bigint>();
  #sender: MarkerSender | undefined;
  #paths: readonly MarkerPath[] = [];
  #proven: readonly MarkerSource[] = [];
  #repeating = new AbortController();
  #lastSentNs = 0n;

  constructor(barrier: string, ports: VmPorts, taps: readonly MarkerPort[]) {
    this.#ports = ports;
    this.#taps = taps;
    // All agents of the barrier come to the same one.
    this.#nonce = createHash('sha256').update(barrier).digest().subarray(0, nonceBytes);
    this.#log = new MarkerLog(this.#nonce);
  }

  /** Begins to send markers to every host that this one's switches know the way to. @throws StaghornError 'host-unfit' */
  async probe(
    { host, targets }: Omit<AgentParams<'probe'>, 'barrier'>,
    signal: AbortSignal,
  ): Promise<NamesByHost> {
    this.#ports.listening = true;
    const bridges = new Set(this.#taps.flatMap(({ switchPort }) => switchPort?.bridge ?? []));
    if (bridges.size === 0) return {};
    const tables = await readMacTables([...bridges], signal);
    const destinations = pairsOf(targets).map(([to, mac]) => ({ host: to, mac }));
    const paths = chooseMarkerPaths(this.#taps, tables, destinations);
    this.#sender = new MarkerSender({ nonce: this.#nonce, host }, this.#ports.ports);
    this.#paths = this.#send(rounds.probe, paths, probeBoundMs);
    return tapsByHost(this.#paths);
  }

  /** Waits until every source was heard, or until the bound. @returns those that were not */
  async listen(
    { sources: named, boundMs }: Omit<AgentParams<'listen'>, 'barrier'>,
    signal: AbortSignal,
  ): Promise<MarkerSource[]> {
    const sources = pairsOf(named).map(([host, tap]): MarkerSource => ({ host, tap }));
    const endMs = performance.now() + boundMs;
    let missing = this.#missing(rounds.probe, sources);
    while (missing.length > 0 && performance.now() < endMs) {
      await sleep(pollMs, undefined, { signal }).catch((error: unknown) => {
        throw asStaghornError(error, 'cancelled', 'listening for markers: ');
      });
      missing = this.#missing(rounds.probe, sources);
    }
    this.#proven = sources.filter((source) => !missing.includes(source));
    return missing;
  }

  get expected(): number {
    return this.#proven.length;
  }

  /** All VMs of this host stand still: what they have sent is on its way, and a marker follows it on every path. */
  sendLast(): void {
    this.#send(rounds.last, this.#paths, lastBoundMs);
  }

  /** Those whose last frames may still be on their way. */
  awaited(): MarkerSource[] {
    return this.#missing(rounds.last, this.#proven);
  }

  /** No more of them: every host has what it waited for, or nobody asks any more. */
  stop(): void {
    this.#repeating.abort();
  }

  /**
   * Waits until the last ones that hosts have sent each other must have come to a gate, as long as the slowest took:
   * once the gate is gone a guest would see them.
   */
  async ebb(): Promise<void> {
    this.stop();
    this.#hear();
    const slowestNs = [...this.#sentNs]
      .map(([round, sentNs]) => Number((this.#log.lastHeardNs(round) ?? sentNs) - sentNs))
      .reduce((a, b) => Math.max(a, b), 0);
    const leftNs = slowestNs - Number(monotonicNs() - this.#lastSentNs);
    if (leftNs > 0) await sleep(Math.ceil(leftNs / nsPerMs));
  }

  /** Sends a round now, and again until it is stopped: links may lose some, and only the receiver knows. */
  #send(round: number, paths: readonly MarkerPath[], boundMs: number): MarkerPath[] {
    this.#repeating.abort();
    this.#repeating = new AbortController();
    this.#sentNs.set(round, monotonicNs());
    const sent = this.#sendOnce(round, paths);
    void this.#repeat(round, sent, boundMs, this.#repeating.signal);
    return sent;
  }

  async #repeat(round: number, paths: readonly MarkerPath[], boundMs: number, signal: AbortSignal) {
    if (paths.length === 0) return;
    for (const delayMs of repetitionsMs(boundMs)) {
      await sleep(delayMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      this.#sendOnce(round, paths);
    }
  }

  #sendOnce(round: number, paths: readonly MarkerPath[]): MarkerPath[] {
    const sent = this.#sender?.send(round, paths) ?? [];
    if (sent.length > 0) this.#lastSentNs = monotonicNs();
    return sent;
  }

  #missing(round: number, sources: readonly MarkerSource[]): MarkerSource[] {
    this.#hear();
    return this.#log.missing(round, sources);
  }

  #hear(): void {
    for (const { frame, atNs } of this.#ports.takeMarkers()) {
      const marker = decodeMarker(frame);
      if (marker !== null) this.#log.push(marker, atNs);
    }
  }
}

const pairsOf = (names: NamesByHost): [string, string][] =>
  Object.entries(names).flatMap(([host, ofHost]) => ofHost.map((name): [string, string] => [host, name]));

function tapsByHost(paths: readonly MarkerPath[]): NamesByHost {
  const taps: NamesByHost = {};
  for (const { tap, host } of paths) (taps[host] ??= []).push(tap);
  return taps;
}

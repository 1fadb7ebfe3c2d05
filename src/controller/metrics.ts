import { Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { Operation, Snapshot } from '../protocol/resources.ts';

/** What GET /metrics tells, in the base units that Prometheus asks for (docs/metrics.md). */
export class Metrics {
  readonly registry = new Registry();
  readonly #operations = new Counter({
    name: 'staghorn_operations_total',
    help: 'Operations ended',
    labelNames: ['kind', 'state'] as const,
    registers: [this.registry],
  });
  readonly #duration = new Histogram({
    name: 'staghorn_operation_duration_seconds',
    help: 'From the request to the end of an operation',
    labelNames: ['kind'] as const,
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
    registers: [this.registry],
  });
  readonly #pause = new Histogram({
    name: 'staghorn_vm_pause_seconds',
    help: 'How long a VM stood still for a snapshot',
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10, 60],
    registers: [this.registry],
  });
  readonly #skew = new Histogram({
    name: 'staghorn_snapshot_skew_seconds',
    help: 'Last stop minus first stop of a VM in a snapshot',
    buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1],
    registers: [this.registry],
  });
  readonly #frames = new Counter({
    name: 'staghorn_frames_in_flight_total',
    help: 'Frames that snapshots kept',
    registers: [this.registry],
  });

  constructor(state: { experiments: () => number; operationsRunning: () => number }) {
    this.#gauge('staghorn_experiments', 'Registered experiments', state.experiments);
    this.#gauge('staghorn_operations_running', 'Operations under way', state.operationsRunning);
  }

  operationEnded({ kind, state, startedAt, endedAt }: Operation): void {
    this.#operations.inc({ kind, state });
    if (endedAt !== null)
      this.#duration.observe({ kind }, (Date.parse(endedAt) - Date.parse(startedAt)) / 1000);
  }

  snapshotTaken({ vms, skewNs, framesInFlight }: Snapshot): void {
    for (const { pauseNs } of vms) this.#pause.observe(pauseNs / 1e9);
    this.#skew.observe(skewNs / 1e9);
    this.#frames.inc(framesInFlight);
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }
}

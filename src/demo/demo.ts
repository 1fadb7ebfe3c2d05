import { readFile } from 'node:fs/promises';

import type { ApiClient } from '../cli/client.ts';
import {
  isFlawless,
  labDown,
  labStatus,
  labUp,
  type Judgement,
  type Lab,
  type LabFile,
} from '../lab/index.ts';
import {
  experiment,
  restoreResult,
  snapshot as snapshotSchema,
  type RestoreResult,
  type Snapshot,
} from '../protocol/resources.ts';
import { Guests } from './guests.ts';
import { operate } from './operate.ts';
import { OwnServer } from './server.ts';

/** How many reports (one a second) each guest writes before the snapshot, after it, and after the restore. */
// Long enough to meet what gaps an undisturbed guest has on this machine.
const reportsBefore = 12;
const reportsAfterSnapshot = 3;
const reportsAfterRestore = 5;
/** The largest gap that a guest may see, against the largest it saw before. */
const allowedGapFactor = 2;

export interface DemoReport {
  readonly ok: boolean;
  readonly experiment: { readonly hosts: number; readonly vms: number };
  readonly snapshot: {
    readonly id: string;
    readonly method: string;
    readonly skewNs: number;
    readonly pauseNs: { readonly min: number; readonly max: number };
    readonly framesInFlight: number;
    readonly bytes: number;
  };
  readonly restore: { readonly durationMs: number; readonly framesDelivered: number };
  readonly guests: {
    readonly sent: number;
    readonly lost: number;
    readonly duplicated: number;
    readonly reordered: number;
    readonly tcpBytes: number;
    readonly tcpMismatches: number;
    readonly tcpRetransmissions: number;
    readonly largestGapNs: number;
    readonly largestGapBeforeNs: number;
    readonly clockJumpNs: number;
  };
}

export interface DemoOptions {
  readonly labFile: LabFile;
  readonly onStep: (text: string) => void;
  readonly signal: AbortSignal;
}

/**
 * The main job on real VMs: a lab under traffic is snapshotted, goes on, is destroyed and restored; then its guests
 * are asked what they noticed. Whatever happens, the lab and the server are gone afterwards.
 */
export async function runDemo({ labFile, onStep, signal }: DemoOptions): Promise<DemoReport> {
  const onProgress = ({ step, detail }: { step: string; detail: string }) =>
    onStep(`lab: ${step}: ${detail}`);
  const lab = await labUp(labFile, { onProgress, signal });
  try {
    const server = await OwnServer.start();
    try {
      return await stopTimeAndBringItBack(lab, server.client, onStep, signal);
    } finally {
      await server.stop();
    }
  } finally {
    onStep('taking the lab down');
    await labDown(lab.name);
  }
}

async function stopTimeAndBringItBack(
  lab: Lab,
  client: ApiClient,
  onStep: (text: string) => void,
  signal: AbortSignal,
): Promise<DemoReport> {
  const guests = new Guests(lab);
  const definition: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
  await client.json('POST', '/v1/experiments', experiment, { body: definition });
  await client.send('GET', `/v1/experiments/${lab.name}/vms`);
  onStep(`guests exchange traffic for ${reportsBefore} s`);
  await guests.waitForReports(await guests.offsets(), reportsBefore);

  onStep('snapshot');
  const atSnapshot = await guests.offsets();
  const taken = await operate(client, `/v1/experiments/${lab.name}/snapshots`, {}, snapshotSchema, signal);
  onStep('the guests go on');
  await guests.waitForReports(await guests.offsets(), reportsAfterSnapshot);
  const wentOn = await guests.judge([{}], atSnapshot);

  onStep('destroying every VM');
  await destroyVms(lab.name);
  const atRestore = await guests.offsets();
  onStep('restore');
  const restored = await operate(client, `/v1/snapshots/${taken.id}/restore`, {}, restoreResult, signal);
  await guests.waitForReports(atRestore, reportsAfterRestore);
  const cameBack = await guests.judge([{ to: atSnapshot }, { from: atRestore }], atSnapshot);
  return report(lab, taken, restored, [wentOn, cameBack]);
}

async function destroyVms(lab: string): Promise<void> {
  const { vms } = await labStatus(lab);
  for (const { pid } of vms) if (pid !== null) process.kill(pid, 'SIGKILL');
}

function report(
  lab: Lab,
  taken: Snapshot,
  restored: RestoreResult,
  judged: readonly Judgement[],
): DemoReport {
  const sum = (count: (judgement: Judgement) => number) =>
    judged.reduce((total, judgement) => total + count(judgement), 0);
  const largest = (of: (judgement: Judgement) => number) => Math.max(...judged.map(of));
  const largestGapNs = largest((judgement) => judgement.largestGapNs);
  const largestGapBeforeNs = largest((judgement) => judgement.largestGapBeforeNs);
  const clockJumpNs = largest((judgement) => judgement.clockJumpNs);
  const unnoticed =
    judged.every(isFlawless) && clockJumpNs === 0 && largestGapNs <= allowedGapFactor * largestGapBeforeNs;
  return {
    ok: unnoticed && restored.framesDelivered === taken.framesInFlight,
    experiment: { hosts: lab.hosts.length, vms: lab.vms.length },
    snapshot: {
      id: taken.id,
      method: taken.methods.join(','),
      skewNs: taken.skewNs,
      pauseNs: taken.pauseNs,
      framesInFlight: taken.framesInFlight,
      bytes: taken.bytes,
    },
    restore: { durationMs: restored.durationMs, framesDelivered: restored.framesDelivered },
    guests: {
      sent: sum(({ sent }) => sent),
      lost: sum(({ lost }) => lost),
      duplicated: sum(({ duplicated }) => duplicated),
      reordered: sum(({ reordered }) => reordered),
      tcpBytes: sum(({ tcpBytes }) => tcpBytes),
      tcpMismatches: sum(({ tcpMismatches, tcpFailures }) => tcpMismatches + tcpFailures),
      tcpRetransmissions: sum(({ tcpRetransmissions }) => tcpRetransmissions),
      largestGapNs,
      largestGapBeforeNs,
      clockJumpNs,
    },
  };
}

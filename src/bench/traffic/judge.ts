import type { EndpointPlan, FlowPlan } from './plan.ts';
import type { EndpointReport, ReceivedFlow } from './report.ts';

/** What became of one flow at one of its recipients. */
export interface FlowVerdict {
  readonly flow: number;
  readonly from: string;
  readonly to: string;
  readonly sent: number;
  readonly lost: number;
  readonly duplicated: number;
  readonly reordered: number;
  /** Came with other VLAN tags than they must have. */
  readonly mistagged: number;
  readonly latencyNs: ReceivedFlow['latencyNs'] | null;
}

export interface Verdict {
  readonly flows: readonly FlowVerdict[];
  readonly sent: number;
  readonly lost: number;
  readonly duplicated: number;
  readonly reordered: number;
  readonly mistagged: number;
  readonly corrupted: number;
  /** Reached an endpoint that is not among the flow's recipients, though addressed to it or to a group. */
  readonly misdirected: number;
  /** Flooded to an endpoint that was not addressed. */
  readonly stray: number;
  /** In words, one a flow and recipient that is not right; empty: all is well. */
  readonly problems: readonly string[];
}

function judgeFlow(flow: FlowPlan, from: string, to: EndpointReport, sent: number): FlowVerdict {
  const received = to.received.find(({ flow: id }) => id === flow.id);
  if (received === undefined) {
    const nothing = { duplicated: 0, reordered: 0, mistagged: 0, latencyNs: null };
    return { flow: flow.id, from, to: to.name, sent, lost: sent, ...nothing };
  }
  const { frames, duplicated, reordered, stale, retagged, tags, latencyNs } = received;
  const wanted = flow.tagsAtRecipients ?? flow.tags ?? [];
  const right = tags.join() === wanted.join();
  return {
    flow: flow.id,
    from,
    to: to.name,
    sent,
    // More than were sent: numbers that the sender, as it is now, has not used yet.
    lost: Math.max(0, sent - (frames - duplicated - stale)),
    duplicated: duplicated + Math.max(0, frames - duplicated - sent),
    reordered: reordered + stale,
    mistagged: right ? retagged : frames - retagged,
    latencyNs,
  };
}

function describe(verdict: FlowVerdict): string | undefined {
  const found = (['lost', 'duplicated', 'reordered', 'mistagged'] as const).filter((key) => verdict[key] > 0);
  if (found.length === 0) return undefined;
  const counts = found.map((key) => `${verdict[key]} ${key}`).join(', ');
  return `flow ${verdict.flow} from ${verdict.from} to ${verdict.to}: ${counts} of ${verdict.sent}`;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Compares what was sent with what was received, once nothing is under way any more. */
export function judge(plans: readonly EndpointPlan[], reports: readonly EndpointReport[]): Verdict {
  const reportOf = (name: string): EndpointReport => {
    const found = reports.find((report) => report.name === name);
    if (found === undefined) throw new Error(`endpoint ${name} has not reported`);
    return found;
  };
  const flows = plans.flatMap(({ name, flows: own }) =>
    own.flatMap((flow) => {
      const sent = reportOf(name).sent.find(({ flow: id }) => id === flow.id)?.frames ?? 0;
      return flow.recipients.map((to) => judgeFlow(flow, name, reportOf(to), sent));
    }),
  );
  const wanted = new Set(flows.map(({ flow, to }) => `${flow} ${to}`));
  const astray = reports.flatMap(({ name, received }) =>
    received.filter(({ flow }) => !wanted.has(`${flow} ${name}`)).map((entry) => ({ name, ...entry })),
  );
  const corrupted = reports.filter((report) => report.corrupted > 0);
  return {
    flows,
    sent: sum(reports.flatMap((report) => report.sent.map(({ frames }) => frames))),
    lost: sum(flows.map(({ lost }) => lost)),
    duplicated: sum(flows.map(({ duplicated }) => duplicated)),
    reordered: sum(flows.map(({ reordered }) => reordered)),
    mistagged: sum(flows.map(({ mistagged }) => mistagged)),
    corrupted: sum(corrupted.map((report) => report.corrupted)),
    misdirected: sum(astray.map(({ frames }) => frames)),
    stray: sum(reports.map(({ stray }) => stray)),
    problems: [
      ...flows.map(describe).filter((text) => text !== undefined),
      ...astray.map(({ flow, name, frames }) => `flow ${flow}: ${frames} frames reached ${name}`),
      ...corrupted.map((report) => `${report.corrupted} corrupted frames reached ${report.name}`),
    ],
  };
}

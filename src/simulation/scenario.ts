import type { Operation } from '../protocol/resources.ts';
import type { Violation } from './invariants.ts';
import { Random } from './random.ts';
import { experimentName, Site } from './site.ts';

/** Longer than any deadline on the way of an operation, with its aborts. */
const operationBoundMs = 2 * 60 * 60_000;
/** Leases, deadlines of aborts, keep-alives. */
const recoveryMs = 60_000;

/** Nothing is left to do then. */
const restMs = 1_000;

export interface ScenarioResult {
  readonly seed: number;
  readonly violations: readonly Violation[];
  /** How the operations ended, for statistics. */
  readonly outcomes: readonly string[];
  readonly trace: readonly string[];
}

/** One run: a few operations, faults among them, then peace, in which everything must come right. */
export async function runScenario(seed: number): Promise<ScenarioResult> {
  const random = new Random(seed);
  const site = new Site({ random, hostCount: random.count(1, 4), vmsPerHost: random.count(1, 2) });
  const outcomes: string[] = [];
  try {
    for (let left = random.count(1, 2); left > 0; left--) outcomes.push(await operate(site, random));
    site.heal();
    await site.time.run(recoveryMs);
    checkRest(site);
    const last = await snapshot(site, 'a snapshot in peace');
    outcomes.push(last);
    site.invariants.require('after faults stop, a snapshot can be taken', last === 'succeeded', last);
    await site.time.run(restMs);
    checkRest(site);
  } finally {
    site.close();
  }
  return { seed, violations: site.invariants.violations, outcomes, trace: site.trace };
}

/** One operation, and with it the faults that happen to come. */
async function operate(site: Site, random: Random): Promise<string> {
  if (site.controllerIsDead) site.startController();
  for (let left = random.count(0, 2); left > 0; left--) planFault(site, random);
  return random.chance(0.7) ? snapshot(site, 'a snapshot') : pause(site, random);
}

async function snapshot(site: Site, what: string): Promise<string> {
  site.note(`${what} is asked for`);
  const { controller } = site;
  const input = { method: 'auto', labels: {}, incremental: true, compression: 'none' } as const;
  return ended(site, () => controller.createSnapshot(experimentName, input));
}

async function pause(site: Site, random: Random): Promise<string> {
  site.note('a pause is asked for');
  const { controller } = site;
  const outcome = await ended(site, () => controller.pauseExperiment(experimentName), false);
  await site.time.run(random.between(0, 60_000), () => site.controllerIsDead);
  if (outcome !== 'succeeded' || site.controllerIsDead) return outcome;
  site.note('the pause is to end');
  return ended(site, () => controller.resumeExperiment(experimentName));
}

/** Carries an operation through, and checks how it left the hosts. */
async function ended(site: Site, start: () => Operation, timeGoesOn = true): Promise<string> {
  let id: string;
  try {
    id = start().id;
  } catch (error) {
    return `refused: ${String(error)}`;
  }
  const { controller } = site;
  const done = await site.time.run(
    operationBoundMs,
    () => site.controllerIsDead || controller.getOperation(id).state !== 'running',
  );
  if (site.controllerIsDead) return 'died with its controller';
  const { state, result, error, snapshot: of } = controller.getOperation(id);
  site.note(`it has ${state}${error === null ? '' : `: ${error.detail}`}`);
  if (!done) return 'never ended';
  if (state === 'succeeded' && result !== null && 'skewNs' in result) site.invariants.sealed(result);
  else if (state === 'succeeded' && of !== null) site.invariants.complete(of);
  if (timeGoesOn || state !== 'succeeded') site.invariants.ended(unconfirmedOf(error?.detail ?? '', site));
  return state;
}

/** Hosts that the error names as not having confirmed the abort. */
function unconfirmedOf(detail: string, site: Site): Set<string> {
  const named = /\(not confirmed by ([^:]*):/.exec(detail)?.[1]?.split(', ') ?? [];
  const known = new Set(site.hosts.map(({ name }) => name));
  return new Set(named.filter((name) => known.has(name)));
}

/** A fault that strikes when so many messages have arrived: so it meets every step sooner or later. */
function planFault(site: Site, random: Random): void {
  const at = site.messages + random.count(1, 45 * site.hosts.length);
  const strike = faultOf(site, random);
  const earlier = site.onMessage;
  let struck = false;
  site.onMessage = () => {
    earlier();
    if (struck || site.messages < at) return;
    struck = true;
    strike();
  };
}

function faultOf(site: Site, random: Random): () => void {
  const { name } = random.pick(site.hosts);
  const silently = random.chance(0.5);
  const rate = random.between(0.01, 0.15);
  const slow = random.pick([5, 100, 3000]);
  return random.pick([
    () => site.crashAgent(name),
    () => site.failVm(name),
    () => site.cutConnection(name),
    () => site.silenceConnection(name),
    () => !site.controllerIsDead && site.crashController(silently),
    () => cancelAll(site),
    () =>
      become(site, `${(rate * 100).toFixed(0)} % of messages are lost`, () => (site.temper.lossRate = rate)),
    () => become(site, 'messages come twice', () => (site.temper.duplicationRate = 2 * rate)),
    () => become(site, 'the network is slow', () => (site.temper.jitterMs = slow)),
    () => become(site, `${name} is slow`, () => (slowest(site, name).slowness = slow)),
  ]);
}

function become(site: Site, text: string, change: () => void): void {
  site.note(text);
  change();
}

const slowest = (site: Site, name: string) => site.hosts.find((host) => host.name === name)!;

function cancelAll(site: Site): void {
  if (site.controllerIsDead) return;
  for (const { id, state } of site.controller.listOperations()) {
    if (state !== 'running') continue;
    site.note('it is cancelled');
    site.controller.cancelOperation(id);
  }
}

/** What must hold when nothing is under way any more. */
function checkRest({ hosts, catalog, invariants }: Site): void {
  const snapshots = catalog.listSnapshots().map((stored) => stored.snapshot);
  for (const { id, state } of snapshots) if (state === 'sealed') invariants.complete(id);
  const known = new Set(snapshots.map(({ id }) => id));
  for (const host of hosts) {
    invariants.require('after faults stop, everything runs and all gates are open', host.runs, host.name);
    const orphans = [...host.parts.keys()].filter((id) => !known.has(id));
    const text = `${orphans.join()} on ${host.name}`;
    invariants.require('nothing is left of snapshots that nobody knows', orphans.length === 0, text);
  }
}

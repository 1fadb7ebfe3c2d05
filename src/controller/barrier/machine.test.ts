import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { StaghornError } from '../../errors/index.ts';
import { BarrierMachine, type BarrierAction, type BarrierEvent } from './machine.ts';
import { pauseProcedure, restoreProcedure, snapshotProcedure, type Procedure } from './procedures.ts';

const hosts = ['h1', 'h2'];
const failure = new StaghornError('vm-failed', 'a VM died');

const calls = (actions: readonly BarrierAction[]) =>
  actions.flatMap((action) => (action.type === 'call' ? [`${action.call}@${action.host}`] : []));
const types = (actions: readonly BarrierAction[]) => actions.map(({ type }) => type);

/** Answers every call at once, until nothing more is asked. */
function runThrough(machine: BarrierMachine, first: BarrierEvent): string[] {
  const log: string[] = [];
  const queue: BarrierEvent[] = [first];
  for (let event = queue.shift(); event !== undefined; event = queue.shift()) {
    for (const action of machine.receive(event)) {
      if (action.type === 'enter') log.push(action.phase.name);
      if (action.type === 'call') queue.push({ type: 'replied', host: action.host, call: action.call });
      if (action.type === 'enter' && action.phase.calls.length === 0) queue.push({ type: 'release' });
      if (action.type === 'done') log.push('done');
    }
  }
  return log;
}

describe('a barrier', () => {
  it('goes through the phases of a snapshot in order', () => {
    const log = runThrough(new BarrierMachine(snapshotProcedure, hosts), { type: 'start' });
    expect(log).toEqual([
      'arm',
      'probe',
      'listen',
      'schedule',
      'cut',
      'freeze',
      'resume',
      'store',
      'commit',
      'done',
    ]);
  });

  it('enters a phase only when every host has answered every call of the one before', () => {
    const machine = new BarrierMachine(snapshotProcedure, hosts);
    expect(calls(machine.receive({ type: 'start' }))).toEqual(['arm@h1', 'arm@h2']);
    expect(machine.receive({ type: 'replied', host: 'h1', call: 'arm' })).toEqual([]);
    expect(machine.receive({ type: 'replied', host: 'h1', call: 'arm' })).toEqual([]);
    expect(calls(machine.receive({ type: 'replied', host: 'h2', call: 'arm' }))).toEqual([
      'probe@h1',
      'probe@h2',
    ]);
  });

  it('waits in a phase without calls until it is released', () => {
    const machine = new BarrierMachine(pauseProcedure, ['h1']);
    machine.receive({ type: 'start' });
    for (const call of ['arm', 'probe', 'listen', 'schedule', 'cut', 'drain'] as const)
      machine.receive({ type: 'replied', host: 'h1', call });
    expect(machine.phase?.name).toBe('hold');
    expect(calls(machine.receive({ type: 'release' }))).toEqual(['resume@h1']);
  });

  /** A machine that waits for its hosts to agree on an instant. */
  function scheduling(): BarrierMachine {
    const machine = new BarrierMachine(snapshotProcedure, hosts);
    machine.receive({ type: 'start' });
    for (const call of ['arm', 'probe', 'listen'] as const)
      for (const host of hosts) machine.receive({ type: 'replied', host, call });
    return machine;
  }
  const refuse = (machine: BarrierMachine) =>
    machine.receive({ type: 'refused', host: 'h1', call: 'schedule' });

  it('recalls what others agreed to when a host refuses, and begins the phase anew when all have answered', () => {
    const machine = scheduling();
    expect(calls(refuse(machine))).toEqual(['recall@h1', 'recall@h2']);
    expect(machine.receive({ type: 'replied', host: 'h1', call: 'recall' })).toEqual([]);
    expect(machine.receive({ type: 'replied', host: 'h2', call: 'recall' })).toEqual([]);
    // The other host had not answered the first attempt yet.
    const actions = machine.receive({ type: 'replied', host: 'h2', call: 'schedule' });
    expect(types(actions)).toEqual(['enter', 'set-deadline', 'call', 'call']);
    expect(calls(actions)).toEqual(['schedule@h1', 'schedule@h2']);
    machine.receive({ type: 'replied', host: 'h1', call: 'schedule' });
    expect(calls(machine.receive({ type: 'replied', host: 'h2', call: 'schedule' }))).toEqual([
      'cut@h1',
      'cut@h2',
    ]);
  });

  it('aborts when what others agreed to cannot be recalled', () => {
    const machine = scheduling();
    refuse(machine);
    expect(types(machine.receive({ type: 'failed', host: 'h2', error: failure }))).toContain('abort');
  });

  it('aborts when a host refuses again and again', () => {
    const machine = scheduling();
    const attempts = snapshotProcedure.find(({ name }) => name === 'schedule')!.attempts!;
    for (let attempt = 1; attempt < attempts; attempt++) {
      expect(calls(refuse(machine))).toContain('recall@h1');
      machine.receive({ type: 'replied', host: 'h2', call: 'schedule' });
      for (const host of hosts) machine.receive({ type: 'replied', host, call: 'recall' });
    }
    expect(refuse(machine).at(-1)).toMatchObject({
      type: 'abort',
      reason: 'host h1: phase schedule came too late, again and again',
    });
  });

  it('tells every reachable host to abort when one fails, and ends when all have answered', () => {
    const machine = new BarrierMachine(snapshotProcedure, hosts);
    machine.receive({ type: 'start' });
    const actions = machine.receive({ type: 'failed', host: 'h2', error: failure });
    expect(types(actions)).toEqual(['set-deadline', 'abort', 'abort']);
    expect(machine.receive({ type: 'abort-answered', host: 'h1' })).toEqual([]);
    expect(machine.receive({ type: 'abort-answered', host: 'h2' })).toEqual([
      { type: 'aborted', cause: failure, unconfirmed: [] },
    ]);
  });

  it('names the hosts that did not confirm an abort: lost ones, and silent ones after its deadline', () => {
    const machine = new BarrierMachine(snapshotProcedure, ['h1', 'h2', 'h3']);
    machine.receive({ type: 'start' });
    const [deadline] = machine.receive({ type: 'lost', host: 'h1', error: failure });
    machine.receive({ type: 'abort-answered', host: 'h2' });
    const timer = deadline?.type === 'set-deadline' ? deadline.timer : -1;
    expect(machine.receive({ type: 'deadline', timer })).toEqual([
      { type: 'aborted', cause: failure, unconfirmed: ['h1', 'h3'] },
    ]);
  });

  it('names the calls that a deadline found unanswered', () => {
    const machine = new BarrierMachine(snapshotProcedure, hosts);
    const deadline = machine.receive({ type: 'start' }).find((action) => action.type === 'set-deadline');
    machine.receive({ type: 'replied', host: 'h1', call: 'arm' });
    const actions = machine.receive({ type: 'deadline', timer: deadline!.timer });
    expect(actions.find((action) => action.type === 'abort')).toMatchObject({
      reason: 'phase arm did not end within 20000 ms: no answer to arm from h2',
    });
  });

  it('ignores the deadline of a phase that has ended', () => {
    const machine = new BarrierMachine(snapshotProcedure, ['h1']);
    const deadline = machine.receive({ type: 'start' }).find((action) => action.type === 'set-deadline');
    machine.receive({ type: 'replied', host: 'h1', call: 'arm' });
    expect(machine.receive({ type: 'deadline', timer: deadline!.timer })).toEqual([]);
  });
});

describe('any interleaving of answers, failures, losses and deadlines', () => {
  const procedure = fc.constantFrom<Procedure>(
    snapshotProcedure,
    pauseProcedure,
    restoreProcedure({ marked: false, paused: false }),
    restoreProcedure({ marked: true, paused: true }),
  );
  const hostNames = fc
    .integer({ min: 1, max: 4 })
    .map((count) => Array.from({ length: count }, (_, i) => `h${i}`));

  it('ends once, never skips a phase, and aborts every host that is not lost', () => {
    fc.assert(
      fc.property(procedure, hostNames, fc.infiniteStream(fc.nat(1_000_000)), (phases, names, randomness) => {
        const random = (below: number) => (randomness.next().value as number) % below;
        const machine = new BarrierMachine(phases, names);
        const pending: BarrierEvent[] = [];
        const lost = new Set<string>();
        const entered: string[] = [];
        const aborted = new Set<string>();
        let ends = 0;
        let timer = 0;
        let next: BarrierEvent | undefined = { type: 'start' };
        for (let step = 0; step < 400 && next !== undefined; step++) {
          const running = machine.state.name === 'running' ? machine.state.waiting.size : -1;
          for (const action of machine.receive(next)) {
            if (action.type === 'enter') {
              if (next.type === 'replied') expect(running).toBe(1);
              entered.push(action.phase.name);
            }
            if (action.type === 'call')
              pending.push({ type: 'replied', host: action.host, call: action.call });
            if (action.type === 'abort') {
              aborted.add(action.host);
              pending.push({ type: 'abort-answered', host: action.host });
            }
            if (action.type === 'set-deadline') timer = action.timer;
            if (action.type === 'done' || action.type === 'aborted') ends += 1;
          }
          const dice = random(40);
          const host = names[random(names.length)]!;
          if (dice === 0) next = { type: 'failed', host, error: failure };
          else if (dice === 1) {
            lost.add(host);
            next = { type: 'lost', host, error: failure };
          } else if (dice === 2) next = { type: 'deadline', timer };
          else if (dice === 3) next = { type: 'cancel', error: failure };
          else if (dice < 6 || pending.length === 0) next = { type: 'release' };
          else next = pending.splice(random(pending.length), 1)[0];
        }
        expect(entered).toEqual(phases.slice(0, entered.length).map(({ name }) => name));
        expect(ends).toBeLessThanOrEqual(1);
        if (machine.state.name === 'aborted') {
          for (const name of names) if (!lost.has(name)) expect(aborted.has(name)).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});

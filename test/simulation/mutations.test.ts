import { describe, expect, it } from 'vitest';

import type { Rule } from '../../src/simulation/index.ts';
import type { Mutation } from '../mutation.ts';
import { withMutant } from './mutant.ts';

interface ProtocolMutation extends Mutation {
  readonly breaks: Rule;
}

const controller = 'src/controller';
const mutations: readonly ProtocolMutation[] = [
  {
    mistake: 'hosts are cut although one could not be armed',
    file: `${controller}/barrier/run.ts`,
    text: "this.#feed({ type: 'failed', host, error: asStaghornError(error) });\n      return;",
    instead: 'outcome = undefined;',
    breaks: 'nobody is cut unless all were armed',
  },
  {
    mistake: 'a phase begins when all answers but one have come',
    file: `${controller}/barrier/machine.ts`,
    text: 'if (before.waiting.size > 0) return [];',
    instead: 'if (before.waiting.size > 1) return [];',
    breaks: 'nobody resumes before all have drained unless aborting',
  },
  {
    mistake: 'time goes on when VMs are kept, and nobody waits for frames in flight',
    file: `${controller}/barrier/procedures.ts`,
    text: "calls: ['drain', 'save']",
    instead: "calls: ['save']",
    breaks: 'nobody resumes before all have drained unless aborting',
  },
  {
    mistake: 'a snapshot is sealed although a host was not told to seal its part',
    file: `${controller}/snapshots/stop-barrier.ts`,
    text: "await this.ask(host, 'commit', params, signal)",
    instead:
      "host.name === 'h1' ? { manifestSha256: '', bytes: 0 } : await this.ask(host, 'commit', params, signal)",
    breaks: 'a sealed snapshot is complete on every host',
  },
  {
    mistake: 'an agent does not notice that its lease has run out',
    file: 'src/agent/session/lease.ts',
    text: 'this.#cancel = time.after(ms, onExpired);',
    instead: 'this.#cancel = time.after(ms, () => undefined);\n    this.renew = () => undefined;',
    breaks: 'after faults stop, everything runs and all gates are open',
  },
  {
    mistake: 'the controller does not listen to a host that gives up',
    file: `${controller}/hosts/agent-link.ts`,
    text: 'this.#notices.get(barrier)?.trouble({ lost: false, error });',
    instead: '',
    breaks: 'when one host gives up, time goes on on the others',
  },
  {
    mistake: 'what a host says of UTC is believed although the exchanges with it contradict',
    file: `${controller}/hosts/utc-offsets.ts`,
    text: 'if (apartNs > clock.errorNs + anchor.errorNs + utc.errorNs + anchor.utc.errorNs) return null;',
    instead: '',
    breaks: 'a skew is as far from the true one as its bound says, at most',
  },
  {
    mistake: 'only one host is told of an abort',
    file: `${controller}/barrier/machine.ts`,
    text: 'const reachable = this.#hosts.filter((host) => !this.#lost.has(host));',
    instead: 'const reachable = this.#hosts.filter((host) => !this.#lost.has(host)).slice(0, 1);',
    breaks: 'when an operation ends, time goes on on every host that it does not name',
  },
  {
    mistake: 'a cut is made although the barrier has ended',
    file: 'src/agent/snapshot/cut-schedule.ts',
    text: 'this.#cancel?.();',
    instead: '',
    breaks: 'after faults stop, everything runs and all gates are open',
  },
  {
    mistake: 'what hosts had sealed stays when another one fails',
    file: `${controller}/snapshots/take-snapshot.ts`,
    text: 'maySealed && !(await removeParts(experiments, head))',
    instead: 'false',
    breaks: 'nothing is left of snapshots that nobody knows',
  },
  {
    mistake: 'the bound of a skew is that of one clock alone, and of no age',
    file: `${controller}/hosts/clock-offset.ts`,
    text: 'return worst + second;',
    instead: 'return Math.ceil((worst + 0 * second) / 4);',
    breaks: 'a skew is as far from the true one as its bound says, at most',
  },
];

const seedsAtMost = 3000;

describe('the simulation finds it when', { timeout: 1_200_000 }, () => {
  it.each(mutations)('$mistake', async (mutation) => {
    const broken = await withMutant(mutation, async ({ explore, runScenario }) => {
      const rules = new Set<string>();
      for (let seed = 1; seed <= seedsAtMost && !rules.has(mutation.breaks);) {
        const { runs, failure } = await explore(seed, seedsAtMost - seed + 1);
        for (const { rule } of failure?.violations ?? []) rules.add(rule);
        if (failure !== null) {
          // A trace that can be reproduced.
          const again = await runScenario(failure.seed);
          expect(again.violations.map(({ rule }) => rule)).toEqual(
            failure.violations.map(({ rule }) => rule),
          );
        }
        seed += runs;
      }
      return rules;
    });
    expect([...broken]).toContain(mutation.breaks);
  });
});

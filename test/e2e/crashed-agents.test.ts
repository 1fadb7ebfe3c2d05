import { describe, expect, it } from 'vitest';

import { BarrierWalk, walkSteps } from './barrier-walk.ts';
import { CrashScene } from './crash-scene.ts';
import { switchBuffers } from './host-view.ts';

describe('an agent that is killed at any step of the barrier', { timeout: 60_000 }, () => {
  const scene = CrashScene.forTests('crash-agents');

  for (const step of walkSteps) {
    it(`after "${step}" is put right by its guardian, the other host by its lease`, async () => {
      const { walk, agents } = await scene().walkTo(step);
      expect(agents).toHaveLength(1);
      const { lab, buffers } = scene();
      const widened = await switchBuffers(lab);
      for (const [port, bytes] of buffers) {
        if (step === 'commit') expect(widened.get(port)).toBe(bytes);
        else expect(widened.get(port)).toBeGreaterThan(bytes);
      }
      for (const pid of agents) process.kill(pid, 'SIGKILL');
      await scene().expectAllWell(walk.snapshot);
    });
  }

  for (const step of ['cut', 'save', 'store'] as const) {
    it(`after "${step}", with its guardian too: the next agent recovers and says so`, async () => {
      const { walk, agents, guardians } = await scene().walkTo(step);
      // The guardian first: it would act as soon as its agent is gone.
      for (const pid of [...guardians, ...agents]) process.kill(pid, 'SIGKILL');
      const next = scene().keep(await BarrierWalk.connect({ ...scene().options, hosts: ['h1'] }));
      expect(next.hosts[0]?.recovered).toMatch(
        new RegExp(`barrier ${walk.barrier}: 1 VMs run, every gate is open`),
      );
      await scene().expectAllWell();
    });
  }
});

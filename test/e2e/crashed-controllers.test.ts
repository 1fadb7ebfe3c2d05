import { describe, it } from 'vitest';

import { CrashScene } from './crash-scene.ts';

describe('a controller', { timeout: 60_000 }, () => {
  const scene = CrashScene.forTests('crash-control');

  for (const step of ['arm', 'cut', 'save', 'resume', 'storing', 'commit'] as const) {
    it(`that is killed after "${step}" leaves agents that let everything go on`, async () => {
      const child = await scene().startController(step);
      child.kill('SIGKILL');
      await scene().expectAllWell();
    });
  }

  for (const step of ['arm', 'save', 'resume'] as const) {
    it(`that hangs after "${step}" loses its lease`, async () => {
      const child = await scene().startController(step);
      child.kill('SIGSTOP');
      await scene().expectAllWell();
    });
  }
});

import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { expect, it } from 'vitest';

import { hiddenTimeEnvironment, readHiddenNs, setHiddenNs } from './hidden-time.ts';

it('keeps the hidden time in the environment of a process, where it can be set anew', async () => {
  const child = spawn('sleep', ['60'], { env: { BEFORE: '1', ...hiddenTimeEnvironment(5n), BEHIND: '2' } });
  try {
    await once(child, 'spawn');
    expect(readHiddenNs(child.pid!)).toBe(5n);
    expect(setHiddenNs(child.pid!, 1_234_567_890_123n)).toBe(true);
    expect(readHiddenNs(child.pid!)).toBe(1_234_567_890_123n);
  } finally {
    child.kill('SIGKILL');
  }
});

it('leaves a process alone that has no room for it', async () => {
  const child = spawn('sleep', ['60'], { env: { STAGHORN_HIDDEN_NS: '7' } });
  try {
    await once(child, 'spawn');
    expect(setHiddenNs(child.pid!, 8n)).toBe(false);
    expect(readHiddenNs(child.pid!)).toBe(7n);
  } finally {
    child.kill('SIGKILL');
  }
});

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';

import { isRunning, parseProcessStat, readProcessStat, thisProcess } from './process-identity.ts';

it('reads state and start of a process whose name has spaces and parentheses', () => {
  const rest = 'S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0';
  expect(parseProcessStat(`7 (a) b (c) ${rest}`)).toEqual({ state: 'S', startTicks: 12345n });
});

it('tells a process from a later one of the same number', async () => {
  const self = thisProcess();
  expect(await isRunning(self)).toBe(true);
  expect(await isRunning({ ...self, startTicks: self.startTicks - 1n })).toBe(false);
});

it('does not take what a killed process leaves for its parent as running', async () => {
  const shell = spawn('sh', ['-c', 'sleep 0 & echo $!; kill -STOP $$'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    const [line] = (await once(shell.stdout, 'data')) as [Buffer];
    const pid = Number(String(line));
    const { startTicks } = (await readProcessStat(pid))!;
    await expect.poll(async () => (await readProcessStat(pid))?.state).toBe('Z');
    expect(await isRunning({ pid, startTicks })).toBe(false);
  } finally {
    shell.kill('SIGKILL');
  }
});

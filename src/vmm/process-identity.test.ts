import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';

import { isRunning, parseProcessStat, readProcessStat, thisProcess } from './process-identity.ts';

it('reads the fields of a process whose name has spaces and parentheses', () => {
  const untilStart = 'S 1 1 1 0 -1 4194560 1 0 0 0 5 6 7 8 20 0 1 0 12345';
  const rest = `${untilStart} ${'0 '.repeat(27)}140722000 140723000 0`;
  expect(parseProcessStat(`7 (a) b (c) ${rest}`)).toEqual({
    command: 'a) b (c',
    state: 'S',
    startTicks: 12345n,
    takenTicks: 26,
    environmentAddress: 140722000n,
  });
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

import { describe, expect, it } from 'vitest';

import { eventually } from '../api/eventually.ts';
import { runCli } from '../../src/cli/program.ts';
import { listen } from '../api/start.ts';
import { FakeTerminal } from './fake-terminal.ts';
import { noParts } from './run.ts';

async function interruptible(interactive: boolean) {
  const { app, service, url } = await listen();
  service.finishAtOnce = false;
  const terminal = new FakeTerminal({ env: { STAGHORN_URL: url }, interactive });
  const running = runCli(['snapshot', 'lab'], terminal, noParts);
  await eventually(() => {
    expect(service.operations.readers).toBe(1);
  });
  return { app, service, terminal, running };
}

describe('Ctrl-C during an operation', () => {
  it.each([false, true])('cancels it at the server and says so (at a terminal: %s)', async (interactive) => {
    const { service, terminal, running } = await interruptible(interactive);
    terminal.signal('SIGINT');
    expect(await running).toBe(41);
    expect(service.getOperation('op-1').state).toBe('cancelled');
    expect(terminal.err).toContain(
      'staghorn: cancelling operation op-1; Ctrl-C once more leaves it to itself\n',
    );
    expect(terminal.err).toContain('staghorn: the snapshot was cancelled\n');
    expect(terminal.hears('SIGINT')).toBe(false);
  });

  it('leaves the operation to itself the second time', async () => {
    const { service, terminal, running } = await interruptible(false);
    // A server that takes its time.
    service.cancelOperation = (id) => service.getOperation(id);
    terminal.signal('SIGINT');
    terminal.signal('SIGINT');
    expect(await running).toBe(130);
    expect(service.getOperation('op-1').state).toBe('running');
    expect(terminal.err).toContain('staghorn: left; operation op-1 goes on at the server\n');
  });
});

describe('progress at a terminal', () => {
  it('is a bar with sizes', async () => {
    const { service, terminal, running } = await interruptible(true);
    service.operations.progress('op-1', {
      step: 'save',
      message: 'RAM',
      doneBytes: 2 ** 20,
      totalBytes: 2 ** 22,
    });
    await eventually(() => {
      expect(terminal.err).toMatch(/█+░+ 25 % {2}1 MiB of 4 MiB {2}save: RAM/);
    });
    service.operations.end('op-1', { result: service.addSnapshot() });
    expect(await running).toBe(0);
  });
});

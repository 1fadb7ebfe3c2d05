import { describe, expect, it } from 'vitest';

import { listen } from '../api/start.ts';
import { run } from './run.ts';

describe('staghorn fork', () => {
  it('asks for as many copies as were said, and lists them', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    const { exit, out } = await run(url, `fork ${id} --count 2 --name copy`);
    expect(exit).toBe(0);
    expect(service.calls).toEqual([
      `forkSnapshot ${id} {"count":2,"name":"copy","verify":true,"paused":false}`,
    ]);
    expect(out).toMatch(new RegExp(`^forked ${id}: 2 forks in 123 ms\n`));
    expect(out).toMatch(/^copy-2 +.*\.f2,.*\.f2 +101 ms +1$/m);
  });

  it('tells each warning once', async () => {
    const { service, url } = await listen();
    service.restoreWarnings = ['host red: eth1 leads out'];
    const { id } = service.addSnapshot();
    const { out } = await run(url, `fork ${id} --count 3`);
    expect(out.match(/warning: /g)).toHaveLength(1);
  });

  it.each(['0', 'many', '-1', '1.5'])('refuses a count of %s', async (count) => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    expect(await run(url, `fork ${id} --count=${count}`)).toMatchObject({ exit: 2 });
    expect(service.calls).toEqual([]);
  });

  it('destroys a fork only where that is said', async () => {
    const { service, url } = await listen();
    await service.addExperiment({ name: 'lab-fork-1', hosts: [{ name: 'h1' }] });
    expect((await run(url, 'experiment remove lab-fork-1 --destroy')).exit).toBe(0);
    await service.addExperiment({ name: 'lab-fork-1', hosts: [{ name: 'h1' }] });
    expect((await run(url, 'experiment remove lab-fork-1')).exit).toBe(0);
    expect(service.calls).toEqual(['destroy lab-fork-1']);
  });
});

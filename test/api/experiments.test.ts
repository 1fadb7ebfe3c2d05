import { describe, expect, it } from 'vitest';

import { labInput } from './samples.ts';
import { problemOf, start } from './start.ts';

describe('experiments over REST', () => {
  it('adds an experiment and says where it is', async () => {
    const { app } = await start();
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/experiments',
      payload: { ...labInput, name: 'second' },
    });
    expect(answer.statusCode).toBe(201);
    expect(answer.headers.location).toBe('/v1/experiments/second');
    expect(answer.json()).toMatchObject({ name: 'second', hosts: labInput.hosts, state: 'running' });
    const again = await app.inject({ url: '/v1/experiments/second' });
    expect(again.json()).toEqual(answer.json());
  });

  it('refuses a second one of the same name with 409', async () => {
    const { app } = await start();
    const answer = await app.inject({ method: 'POST', url: '/v1/experiments', payload: labInput });
    expect(problemOf(answer)).toMatchObject({ status: 409, code: 'conflict', type: '/problems/conflict' });
  });

  it('lists them', async () => {
    const { app } = await start();
    const answer = await app.inject({ url: '/v1/experiments' });
    expect(answer.json<{ name: string }[]>().map(({ name }) => name)).toEqual(['lab']);
  });

  it('removes one with an empty 204 and knows it no more', async () => {
    const { app } = await start();
    const answer = await app.inject({ method: 'DELETE', url: '/v1/experiments/lab' });
    expect([answer.statusCode, answer.body]).toEqual([204, '']);
    expect(problemOf(await app.inject({ url: '/v1/experiments/lab' })).code).toBe('not-found');
    expect(problemOf(await app.inject({ method: 'DELETE', url: '/v1/experiments/lab' })).status).toBe(404);
  });

  it('lists VMs and ports with the hosts they are on', async () => {
    const { app } = await start();
    const vms = await app.inject({ url: '/v1/experiments/lab/vms' });
    expect(vms.json<{ host: string; name: string }[]>().map(({ host, name }) => [host, name])).toEqual([
      ['red', 'red-vm'],
      ['blue', 'blue-vm'],
    ]);
    const ports = await app.inject({ url: '/v1/experiments/lab/ports' });
    expect(ports.json<unknown[]>()[0]).toMatchObject({
      host: 'red',
      tap: 'tap0',
      switchPort: { bridge: 'br0', tag: 10 },
    });
  });

  it.each(['pause', 'resume'])('answers %s with an operation without a body', async (verb) => {
    const { app } = await start();
    const answer = await app.inject({ method: 'POST', url: `/v1/experiments/lab/${verb}` });
    expect(answer.statusCode).toBe(202);
    expect(answer.json()).toMatchObject({ kind: verb, experiment: 'lab', state: 'running' });
    expect(answer.headers.location).toBe(`/v1/operations/${answer.json<{ id: string }>().id}`);
    expect(problemOf(await app.inject({ method: 'POST', url: `/v1/experiments/no/${verb}` })).status).toBe(
      404,
    );
  });
});

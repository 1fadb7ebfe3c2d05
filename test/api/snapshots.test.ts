import { describe, expect, it } from 'vitest';

import { problemOf, start } from './start.ts';

describe('snapshots over REST', () => {
  it('begins a snapshot with the defaults of the schema for an empty body', async () => {
    const { app, service } = await start();
    const answer = await app.inject({ method: 'POST', url: '/v1/experiments/lab/snapshots' });
    expect(answer.statusCode).toBe(202);
    expect(answer.headers.location).toBe('/v1/operations/op-1');
    expect(service.calls).toEqual(['createSnapshot lab {"method":"auto"}']);
  });

  it('takes an empty body of media type JSON for no body', async () => {
    const { app } = await start();
    const headers = { 'content-type': 'application/json' };
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/experiments/lab/snapshots',
      headers,
      payload: '',
    });
    expect(answer.statusCode).toBe(202);
  });

  it('answers 409 while the experiment is in a snapshot', async () => {
    const { app, service } = await start();
    service.getExperiment('lab').state = 'snapshotting';
    const answer = await app.inject({ method: 'POST', url: '/v1/experiments/lab/snapshots' });
    expect(problemOf(answer)).toMatchObject({ status: 409, code: 'conflict' });
  });

  it('lists all, those of an experiment, and those of an experiment that was removed', async () => {
    const { app, service } = await start();
    service.addSnapshot();
    service.addSnapshot({ experiment: 'gone' });
    const experiments = async (url: string) =>
      (await app.inject({ url })).json<{ experiment: string }[]>().map(({ experiment }) => experiment);
    expect(await experiments('/v1/snapshots')).toEqual(['lab', 'gone']);
    expect(await experiments('/v1/snapshots?experiment=gone')).toEqual(['gone']);
    expect(await experiments('/v1/experiments/lab/snapshots')).toEqual(['lab']);
    expect(await experiments('/v1/experiments/gone/snapshots')).toEqual(['gone']);
    expect(problemOf(await app.inject({ url: '/v1/experiments/no/snapshots' })).status).toBe(404);
  });

  it('refuses a filter that it does not know', async () => {
    const { app } = await start();
    const { problems } = problemOf(await app.inject({ url: '/v1/snapshots?experimnt=lab' }));
    expect(problems?.join()).toContain('experimnt');
  });

  it('shows one, deletes it by an operation, and knows it no more', async () => {
    const { app, service } = await start();
    const made = service.addSnapshot();
    expect((await app.inject({ url: `/v1/snapshots/${made.id}` })).json()).toEqual(made);
    const answer = await app.inject({ method: 'DELETE', url: `/v1/snapshots/${made.id}` });
    expect([answer.statusCode, answer.json<{ kind: string }>().kind]).toEqual([202, 'delete']);
    expect(problemOf(await app.inject({ url: `/v1/snapshots/${made.id}` })).code).toBe('not-found');
  });

  it('restores onto running VMs only if told to replace them', async () => {
    const { app, service } = await start();
    const { id } = service.addSnapshot();
    const url = `/v1/snapshots/${id}/restore`;
    expect(problemOf(await app.inject({ method: 'POST', url })).code).toBe('conflict');
    const answer = await app.inject({ method: 'POST', url, payload: { replace: true } });
    expect([answer.statusCode, answer.json<{ kind: string }>().kind]).toEqual([202, 'restore']);
    expect(service.calls.at(-1)).toBe(`restoreSnapshot ${id} {"replace":true,"verify":true,"paused":false,"clock":"hidden","dryRun":false}`);
  });

  it('verifies by an operation', async () => {
    const { app, service } = await start();
    const { id } = service.addSnapshot();
    const answer = await app.inject({ method: 'POST', url: `/v1/snapshots/${id}/verify` });
    const { id: operation } = answer.json<{ id: string }>();
    const ended = await app.inject({ url: `/v1/operations/${operation}` });
    expect(ended.json()).toMatchObject({ state: 'succeeded', result: { snapshot: id, ok: true } });
  });
});

describe('frames over REST', () => {
  it('come as JSON by default', async () => {
    const { app, service } = await start();
    const { id } = service.addSnapshot();
    const answer = await app.inject({ url: `/v1/snapshots/${id}/frames` });
    expect(answer.headers['content-type']).toContain('application/json');
    expect(answer.json<{ vm: string }[]>().map(({ vm }) => vm)).toEqual(['red-vm', 'blue-vm']);
  });

  it('come as pcapng to who asks for it', async () => {
    const { app, service } = await start();
    const { id } = service.addSnapshot();
    const headers = { accept: 'application/x-pcapng' };
    const answer = await app.inject({ url: `/v1/snapshots/${id}/frames`, headers });
    expect(answer.headers['content-type']).toBe('application/x-pcapng');
    expect(answer.headers['content-disposition']).toContain(`${id}.pcapng`);
    // The section header block's type (draft-ietf-opsawg-pcapng), and the two frames somewhere behind it.
    expect(answer.rawPayload.readUInt32BE(0)).toBe(0x0a0d0d0a);
    expect(answer.rawPayload.includes('red-vm') && answer.rawPayload.includes('blue-vm')).toBe(true);
  });

  it('are refused with 406 in any other form', async () => {
    const { app, service } = await start();
    const { id } = service.addSnapshot();
    const answer = await app.inject({ url: `/v1/snapshots/${id}/frames`, headers: { accept: 'text/html' } });
    expect(problemOf(answer)).toMatchObject({ status: 406, code: 'not-acceptable' });
  });
});

import { describe, expect, it } from 'vitest';

import { StaghornError } from '../../src/errors/index.ts';
import { problemOf, start } from './start.ts';

describe('snapshots over REST', () => {
  it('begins a snapshot with the defaults of the schema for an empty body', async () => {
    const { app, service } = await start();
    const answer = await app.inject({ method: 'POST', url: '/v1/experiments/lab/snapshots' });
    expect(answer.statusCode).toBe(202);
    expect(answer.headers.location).toBe('/v1/operations/op-1');
    expect(service.calls).toEqual([
      'createSnapshot lab {"method":"auto","labels":{},"incremental":true,"compression":"none"}',
    ]);
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
    expect(service.calls.at(-1)).toMatch(`restoreSnapshot ${id} {"replace":true,"verify":true`);
  });

  it('searches by labels, which must all fit, and by a pattern of the name', async () => {
    const { app, service } = await start();
    service.addSnapshot({ name: 'main-1', labels: { branch: 'main', keep: '' } });
    service.addSnapshot({ name: 'main-2', labels: { branch: 'main' } });
    service.addSnapshot({ labels: { branch: 'mainly' } });
    const names = async (query: string) =>
      (await app.inject({ url: `/v1/snapshots?${query}` }))
        .json<{ name: string }[]>()
        .map(({ name }) => name);
    expect(await names('label=branch%3Dmain')).toEqual(['main-1', 'main-2']);
    expect(await names('label=branch%3Dmain&label=keep')).toEqual(['main-1']);
    expect(await names('name=*-2')).toEqual(['main-2']);
    expect(await names('name=main-?&label=branch')).toEqual(['main-1', 'main-2']);
    expect(await names('name=main')).toEqual([]);
    expect(problemOf(await app.inject({ url: '/v1/snapshots?name=*a*a*a*a*a' })).status).toBe(400);
  });

  it('changes name, description and labels, and nothing else', async () => {
    const { app, service } = await start();
    const { id } = service.addSnapshot({ name: 'a', labels: { one: '1', two: '2' } });
    const url = `/v1/snapshots/${id}`;
    const payload = { name: null, labels: { one: null, three: '3' } };
    const answer = await app.inject({ method: 'PATCH', url, payload });
    expect(answer.json()).toMatchObject({ id, name: null, labels: { two: '2', three: '3' } });
    const wrong = await app.inject({ method: 'PATCH', url, payload: { state: 'sealed' } });
    expect(problemOf(wrong).code).toBe('invalid-input');
  });

  it('prunes by an operation, and never without a rule that keeps something', async () => {
    const { app, service } = await start();
    const made = [service.addSnapshot(), service.addSnapshot()];
    const url = '/v1/experiments/lab/prune';
    expect(problemOf(await app.inject({ method: 'POST', url })).detail).toMatch(/must keep something/);
    const answer = await app.inject({ method: 'POST', url, payload: { keepLast: 1, dryRun: true } });
    const { id } = answer.json<{ id: string }>();
    const ended = await app.inject({ url: `/v1/operations/${id}` });
    expect(ended.json()).toMatchObject({ kind: 'prune', result: { removed: [made[0]!.id] } });
  });

  it('begins, shows and ends rolling snapshots', async () => {
    const { app } = await start();
    const url = '/v1/experiments/lab/rolling';
    expect(problemOf(await app.inject({ url })).code).toBe('not-found');
    const payload = { everySeconds: 300, keep: 12 };
    const begun = await app.inject({ method: 'PUT', url, payload });
    expect(begun.json()).toMatchObject({ experiment: 'lab', ...payload, method: 'auto', lastError: null });
    expect((await app.inject({ url: '/v1/rolling' })).json()).toEqual([begun.json()]);
    expect((await app.inject({ method: 'DELETE', url })).statusCode).toBe(204);
    expect((await app.inject({ url })).statusCode).toBe(404);
    const tooOften = await app.inject({ method: 'PUT', url, payload: { everySeconds: 1, keep: 1 } });
    expect(problemOf(tooOften).code).toBe('invalid-input');
  });

  it('exports a stream, and answers with the problem of what fails before its first byte', async () => {
    const { app, service } = await start();
    const made = service.addSnapshot();
    const url = `/v1/snapshots/${made.id}/export`;
    const answer = await app.inject({ url });
    expect(answer.headers).toMatchObject({ 'content-type': 'application/zstd' });
    expect(answer.headers['content-disposition']).toContain(`${made.id}.tar.zst`);
    expect(answer.json()).toEqual(made);
    service.hostError = new StaghornError('host-unreachable', 'no route');
    expect(problemOf(await app.inject({ url })).code).toBe('host-unreachable');
  });

  it('imports a body of any size, of the right type only', async () => {
    const { app, service } = await start();
    const made = service.addSnapshot({ description: 'x'.repeat(3 * 1024 * 1024) });
    const url = '/v1/snapshots/import?experiment=lab&map=red%3Dblue&map=a%3Db';
    const request = { method: 'POST' as const, url, payload: JSON.stringify(made) };
    const headers = { 'content-type': 'application/zstd' };
    const answer = await app.inject({ ...request, headers });
    expect([answer.statusCode, answer.headers.location]).toEqual([201, `/v1/snapshots/${made.id}`]);
    expect(service.calls.at(-1)).toBe('importSnapshot {"experiment":"lab","map":{"red":"blue","a":"b"}}');
    const empty = await app.inject({ ...request, headers, payload: 'null' });
    expect(problemOf(empty).code).toBe('snapshot-damaged');
    const wrong = await app.inject({ ...request, headers: { 'content-type': 'text/html' } });
    expect(problemOf(wrong).code).toBe('unsupported-media-type');
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

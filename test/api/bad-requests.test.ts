import { describe, expect, it } from 'vitest';

import { errorRegistry, StaghornError } from '../../src/errors/index.ts';
import { labInput } from './samples.ts';
import { problemOf, start } from './start.ts';

const json = { 'content-type': 'application/json' };

describe('a bad request', () => {
  it('gets 404 where nothing is', async () => {
    const { app } = await start();
    expect(problemOf(await app.inject({ url: '/v1/nothing' }))).toMatchObject({
      status: 404,
      code: 'not-found',
    });
  });

  it('gets 405 with Allow for a method that the address does not know', async () => {
    const { app } = await start();
    const answer = await app.inject({ method: 'PUT', url: '/v1/experiments/lab?x=1' });
    expect(problemOf(answer).code).toBe('method-not-allowed');
    expect(answer.headers.allow).toBe('DELETE, GET, HEAD');
  });

  it('hears where its JSON breaks', async () => {
    const { app } = await start();
    const post = (payload: string) =>
      app.inject({ method: 'POST', url: '/v1/experiments', headers: json, payload });
    expect(problemOf(await post('{\n  "name": lab }')).detail).toContain('line 2, column 11 (offset 12)');
    expect(problemOf(await post('{"name": "lab"')).detail).toContain('ends too early');
    expect(problemOf(await post('{"__proto__": {}}'))).toMatchObject({ status: 400, code: 'invalid-input' });
  });

  it('hears all that is wrong with its body at once, with paths', async () => {
    const { app } = await start();
    const payload = { name: '../etc', hosts: [{ name: 'red', port: 0 }, { nam: 'blue' }], extra: 1 };
    const answer = problemOf(await app.inject({ method: 'POST', url: '/v1/experiments', payload }));
    expect(answer.status).toBe(400);
    const paths = (answer.problems ?? []).map((text) => text.slice(0, text.indexOf(':')));
    expect(paths.sort()).toEqual([
      'body',
      'body.hosts[0].port',
      'body.hosts[1]',
      'body.hosts[1].name',
      'body.name',
    ]);
  });

  it('hears what is missing when it has no body at all', async () => {
    const { app } = await start();
    const { problems } = problemOf(await app.inject({ method: 'POST', url: '/v1/experiments' }));
    expect(problems?.map((text) => text.split(':')[0])).toEqual(['body.name', 'body.hosts']);
  });

  it('gets 413 for a body above the limit', async () => {
    const { app } = await start({ limits: { bodyBytes: 1000 } });
    const payload = { ...labInput, description: 'x'.repeat(1000) };
    const answer = await app.inject({ method: 'POST', url: '/v1/experiments', payload });
    expect(problemOf(answer)).toMatchObject({ status: 413, code: 'body-too-large' });
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded'])('gets 415 for a body of %s', async (type) => {
    const { app } = await start();
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/experiments/lab/snapshots',
      headers: { 'content-type': type },
      payload: 'name=x',
    });
    expect(problemOf(answer)).toMatchObject({ status: 415, code: 'unsupported-media-type' });
  });

  it('gets 400 for an address that cannot be decoded', async () => {
    const { app } = await start();
    expect(problemOf(await app.inject({ url: '/v1/experiments/%zz' })).code).toBe('invalid-input');
  });

  it('gets a problem for a name longer than any', async () => {
    const { app } = await start();
    const answer = await app.inject({ url: `/v1/experiments/${'x'.repeat(500)}` });
    expect(problemOf(answer).status).toBeGreaterThanOrEqual(400);
  });
});

describe('an error of the service', () => {
  it('keeps its host and its code', async () => {
    const { app, service } = await start();
    service.hostError = new StaghornError('host-unreachable', 'red: connection refused', {
      context: { host: 'red' },
    });
    const answer = problemOf(await app.inject({ url: '/v1/experiments/lab/vms' }));
    expect(answer).toEqual({
      type: '/problems/host-unreachable',
      title: errorRegistry['host-unreachable'].title,
      status: 502,
      detail: 'red: connection refused',
      code: 'host-unreachable',
      host: 'red',
    });
  });

  it('is "internal" if it is not one of ours', async () => {
    const { app, service } = await start();
    service.metrics = () => Promise.reject(new TypeError('no such property'));
    expect(problemOf(await app.inject({ url: '/metrics' }))).toMatchObject({ status: 500, code: 'internal' });
  });
});

describe('the pages about problems', () => {
  it('explain each kind from its section of docs/errors.md, to everybody', async () => {
    const { app } = await start({ token: 'secret' });
    for (const [code, { status, exit }] of Object.entries(errorRegistry)) {
      const answer = await app.inject({ url: `/problems/${code}` });
      expect(answer.statusCode).toBe(200);
      expect(answer.body).toMatch(new RegExp(`^## ${code}\n\nHTTP ${status}, exit code ${exit}\\. .{40}`));
    }
  });

  it('are 404 for a kind that there is not', async () => {
    const { app } = await start();
    expect(problemOf(await app.inject({ url: '/problems/nonsense' })).status).toBe(404);
  });
});

import { describe, expect, it } from 'vitest';

import { listen, problemOf, start } from './start.ts';

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('a server with a token', () => {
  it.each(['/v1/experiments', '/v1/snapshots', '/v1/operations', '/v1/operations/op-1/events', '/metrics'])(
    'refuses %s without the token, with another and with another scheme',
    async (url) => {
      const { app } = await start({ token: 'secret' });
      for (const headers of [{}, bearer('secre'), bearer('secrets'), { authorization: 'Basic secret' }]) {
        const answer = await app.inject({ url, headers });
        expect(problemOf(answer)).toMatchObject({ status: 401, code: 'unauthorized' });
        expect(answer.headers['www-authenticate']).toMatch(/^Bearer/);
      }
    },
  );

  it('serves who has the token', async () => {
    const { app } = await start({ token: 'secret' });
    const answer = await app.inject({ url: '/v1/experiments', headers: bearer('secret') });
    expect(answer.statusCode).toBe(200);
    const metrics = await app.inject({ url: '/metrics', headers: bearer('secret') });
    expect(metrics.headers['content-type']).toContain('version=0.0.4');
    expect(metrics.body).toContain('staghorn_snapshots_total 0');
  });

  it('refuses before it reads the body', async () => {
    const { app, service } = await start({ token: 'secret' });
    const answer = await app.inject({ method: 'POST', url: '/v1/experiments/lab/snapshots', payload: '{' });
    expect(answer.statusCode).toBe(401);
    expect(service.calls).toEqual([]);
  });

  it('tells everybody its health, its API and what problems mean', async () => {
    const { app } = await start({ token: 'secret' });
    for (const url of ['/v1/health', '/v1/openapi.json', '/docs/', '/docs/json', '/problems/conflict']) {
      expect([url, (await app.inject({ url })).statusCode]).toEqual([url, 200]);
    }
    expect((await app.inject({ url: '/v1/health' })).json()).toMatchObject({ status: 'ok', experiments: 1 });
  });
});

describe('a server without a token', () => {
  it('answers on loopback under its loopback names only', async () => {
    const { url } = await listen();
    const { port } = new URL(url);
    expect((await fetch(`http://127.0.0.1:${port}/v1/experiments`)).status).toBe(200);
    const { app } = await start();
    const local = { remoteAddress: '127.0.0.1' };
    expect((await app.inject({ url: '/v1/experiments', ...local })).statusCode).toBe(200);
    expect(await statusWithHost(Number(port), `localhost:${port}`)).toBe(200);
    expect(await statusWithHost(Number(port), `[::1]:${port}`)).toBe(200);
    expect(await statusWithHost(Number(port), `evil.example:${port}`)).toBe(403);
  });

  it('refuses pages of another origin', async () => {
    const { app, service } = await start();
    const post = (origin: string) =>
      app.inject({
        method: 'POST',
        url: '/v1/experiments/lab/snapshots',
        headers: { origin, host: 'localhost:7411' },
      });
    expect(problemOf(await post('http://evil.example')).code).toBe('origin-refused');
    expect(problemOf(await post('null')).code).toBe('origin-refused');
    expect(service.calls).toEqual([]);
    expect((await post('http://localhost:7411')).statusCode).toBe(202);
  });
});

/** fetch does not let a caller choose the Host header. */
async function statusWithHost(port: number, host: string): Promise<number | undefined> {
  const { get } = await import('node:http');
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/v1/experiments', headers: { host } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    }).on('error', reject);
  });
}

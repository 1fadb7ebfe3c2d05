import { describe, expect, it } from 'vitest';

import { secondsToWait } from '../../src/api/waiting.ts';
import { operation } from '../../src/protocol/resources.ts';
import { eventually } from './eventually.ts';
import { listen, start } from './start.ts';

const body = JSON.stringify({});
const post = (url: string, prefer: string, signal?: AbortSignal) =>
  fetch(`${url}/v1/experiments/lab/snapshots`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', prefer },
    body,
    ...(signal === undefined ? {} : { signal }),
  });

describe('an answer that a client prefers to wait for', () => {
  it('comes when the operation has ended', async () => {
    const { service, url } = await listen();
    service.finishAtOnce = false;
    const answering = post(url, 'wait=30');
    await eventually(() => {
      expect(service.operations.readers).toBe(1);
    });
    const [{ id } = { id: '' }] = service.operations.list();
    service.operations.progress(id, { step: 'arm', message: 'arming' });
    service.operations.end(id, {});
    const answer = await answering;
    expect(answer.status).toBe(200);
    expect(answer.headers.get('preference-applied')).toBe('wait=30');
    expect(operation.parse(await answer.json())).toMatchObject({ id, state: 'succeeded' });
  });

  it('comes with the operation as it is if it takes longer', async () => {
    const { service, url } = await listen({ limits: { waitSeconds: 0 } });
    service.finishAtOnce = false;
    const answer = await post(url, 'respond-async, wait=30');
    expect(answer.status).toBe(202);
    expect(answer.headers.get('preference-applied')).toBe('wait=0');
    expect(answer.headers.get('location')).toBe('/v1/operations/op-1');
    expect(await answer.json()).toMatchObject({ id: 'op-1', state: 'running' });
  });

  it('is not waited for once the client has gone', async () => {
    const { service, url } = await listen();
    service.finishAtOnce = false;
    const leave = new AbortController();
    const answering = post(url, 'wait=30', leave.signal);
    await eventually(() => {
      expect(service.operations.readers).toBe(1);
    });
    leave.abort();
    await expect(answering).rejects.toThrow();
    await eventually(() => {
      expect(service.operations.readers).toBe(0);
    });
  });

  it('comes at once if a refusal is all that there is to say', async () => {
    const { app } = await start();
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/experiments/none/snapshots',
      headers: { prefer: 'wait=30' },
    });
    expect(answer.statusCode).toBe(404);
    expect(answer.headers).not.toHaveProperty('preference-applied');
  });

  it.each([
    ['wait=10', 10],
    ['respond-async, wait=10', 10],
    ['wait = "5"; x=1', 5],
    ['WAIT=7', 7],
    ['respond-async', null],
    ['wait=soon', null],
    ['await=10', null],
    [undefined, null],
  ])('is wished for by Prefer: %s', (prefer, seconds) => {
    expect(secondsToWait(prefer)).toBe(seconds);
  });
});

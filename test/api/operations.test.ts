import { describe, expect, it } from 'vitest';

import { eventually } from './eventually.ts';
import { SseDecoder, type SseMessage } from '../../src/cli/sse.ts';
import { StaghornError } from '../../src/errors/index.ts';
import { operationEvent } from '../../src/protocol/resources.ts';
import { listen, problemOf, start } from './start.ts';

describe('operations over REST', () => {
  it('are listed, shown and cancelled', async () => {
    const { app, service } = await start();
    const { id } = service.operations.begin('verify', { experiment: 'lab' });
    expect((await app.inject({ url: '/v1/operations' })).json<unknown[]>()).toHaveLength(1);
    const answer = await app.inject({ method: 'DELETE', url: `/v1/operations/${id}` });
    expect(answer.statusCode).toBe(202);
    const shown = await app.inject({ url: `/v1/operations/${id}` });
    expect(shown.json()).toMatchObject({ id, state: 'cancelled', error: { code: 'cancelled' } });
  });

  it.each(['/v1/operations/no', '/v1/operations/no/events'])('%s is 404', async (url) => {
    const { app } = await start();
    expect(problemOf(await app.inject({ url })).code).toBe('not-found');
  });

  it('refuses a Last-Event-ID that is none', async () => {
    const { app, service } = await start();
    const { id } = service.operations.begin('verify', {});
    const answer = await app.inject({
      url: `/v1/operations/${id}/events`,
      headers: { 'last-event-id': 'x' },
    });
    expect(problemOf(answer).problems?.[0]).toContain('headers.last-event-id');
  });
});

describe('the events of an operation', () => {
  it('come as they happen, and the stream ends with the operation', async () => {
    const { service, url } = await listen();
    const { id } = service.operations.begin('snapshot', { experiment: 'lab' });
    const stream = await open(`${url}/v1/operations/${id}/events`);
    expect(stream.answer.headers.get('content-type')).toBe('text/event-stream');
    service.operations.progress(id, { step: 'arm', message: 'arming' });
    expect(await stream.next()).toMatchObject({ id: '1', event: 'progress' });
    service.operations.progress(id, { step: 'cut', message: 'cutting' });
    const second = await stream.next();
    expect(operationEvent.parse(JSON.parse(second?.data ?? ''))).toMatchObject({
      id: 2,
      progress: { step: 'cut' },
    });
    service.operations.end(id, { error: new StaghornError('vm-failed', 'no reply') });
    expect(await stream.next()).toMatchObject({ id: '3', event: 'ended' });
    expect(await stream.next()).toBeUndefined();
  });

  it('go on after Last-Event-ID', async () => {
    const { service, url } = await listen();
    const { id } = service.operations.begin('snapshot', {});
    for (const step of ['arm', 'cut', 'drain']) service.operations.progress(id, { step, message: step });
    service.operations.end(id, {});
    const stream = await open(`${url}/v1/operations/${id}/events`, { 'last-event-id': '2' });
    expect([(await stream.next())?.id, (await stream.next())?.id, await stream.next()]).toEqual([
      '3',
      '4',
      undefined,
    ]);
  });

  it('are kept alive by comments while nothing happens', async () => {
    const { service, url } = await listen({ limits: { heartbeatMs: 10 } });
    const { id } = service.operations.begin('snapshot', {});
    const answer = await fetch(`${url}/v1/operations/${id}/events`);
    let text = '';
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    while (text.split(': still there\n\n').length < 4) text += (await reader?.read())?.value ?? '';
    service.operations.end(id, {});
    for (let part = await reader?.read(); part?.done === false; part = await reader?.read())
      text += part.value;
    expect(text).toContain('event: ended');
  });

  it('are no longer read once the client has gone', async () => {
    const { service, url } = await listen();
    const { id } = service.operations.begin('snapshot', {});
    const leave = new AbortController();
    const answer = await fetch(`${url}/v1/operations/${id}/events`, { signal: leave.signal });
    expect(answer.status).toBe(200);
    await eventually(() => {
      expect(service.operations.readers).toBe(1);
    });
    leave.abort();
    await eventually(() => {
      expect(service.operations.readers).toBe(0);
    });
  });

  it('end when the server closes', async () => {
    const { app, service, url } = await listen();
    const { id } = service.operations.begin('snapshot', {});
    const stream = await open(`${url}/v1/operations/${id}/events`);
    service.operations.progress(id, { step: 'arm', message: 'arming' });
    await stream.next();
    await app.close();
    expect(await stream.next()).toBeUndefined();
    expect(service.operations.readers).toBe(0);
  });

  it('tell of an error of their source', async () => {
    const { service, url } = await listen();
    const { id } = service.operations.begin('snapshot', {});

    service.operationEvents = async function* () {
      throw new StaghornError('agent-lost', 'gone', { context: { host: 'red' } });
    };
    const stream = await open(`${url}/v1/operations/${id}/events`);
    const told = await stream.next();
    expect([told?.event, JSON.parse(told?.data ?? '')]).toMatchObject([
      'error',
      { code: 'agent-lost', host: 'red' },
    ]);
    expect(await stream.next()).toBeUndefined();
  });
});

async function open(url: string, headers: Record<string, string> = {}) {
  const answer = await fetch(url, { headers });
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  const decoder = new SseDecoder({ maxMessageBytes: 100_000 });
  const waiting: SseMessage[] = [];
  const next = async (): Promise<SseMessage | undefined> => {
    while (waiting.length === 0) {
      const part = await reader?.read();
      if (part?.value === undefined) return undefined;
      waiting.push(...decoder.push(part.value));
    }
    return waiting.shift();
  };
  return { answer, next };
}

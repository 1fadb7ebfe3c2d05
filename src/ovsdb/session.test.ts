import { describe, expect, it } from 'vitest';
import type { JsonValue } from './json.ts';
import { OvsdbSession } from './session.ts';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;
const decoded = (bytes: Buffer): unknown => JSON.parse(bytes.toString());

describe('OvsdbSession', () => {
  it('matches replies to requests by id, in any order', () => {
    const session = new OvsdbSession(4);
    const first = session.request('list_dbs', []);
    const second = session.request('get_schema', ['db']);
    expect(decoded(second.bytes)).toEqual({ method: 'get_schema', params: ['db'], id: second.id });
    const result = ['a'];
    expect(session.receive({ kind: 'result', id: second.id, result })).toEqual({
      kind: 'returned',
      id: second.id,
      result,
    });
    expect(session.receive({ kind: 'result', id: first.id, result })).toMatchObject({ id: first.id });
    expect(session.pendingCount).toBe(0);
  });

  it.each<[JsonValue, object]>([
    [
      { error: 'unknown database', details: 'no db', syntax: '' },
      { error: 'unknown database', details: 'no db' },
    ],
    ['canceled', { error: 'canceled', details: undefined }],
    [7, { error: '7', details: undefined }],
  ])('keeps what the server says of a refused request: %j', (error, failure) => {
    const session = new OvsdbSession(4);
    const { id } = session.request('transact', []);
    expect(session.receive({ kind: 'error', id, error })).toMatchObject({
      kind: 'failed',
      id,
      error: { code: 'request-failed', failure },
    });
  });

  it("answers the server's echo with its own parameters, and anything else as unknown", () => {
    const session = new OvsdbSession(4);
    const echo = session.receive({ kind: 'request', method: 'echo', params: [1, 'x'], id: 'echo' });
    expect(echo.kind === 'asked' && decoded(echo.bytes)).toEqual({
      result: [1, 'x'],
      error: null,
      id: 'echo',
    });
    const other = session.receive({ kind: 'request', method: 'steal', params: [], id: 5 });
    expect(other.kind === 'asked' && decoded(other.bytes)).toEqual({
      result: null,
      error: 'unknown method',
      id: 5,
    });
  });

  it('tells updates of monitors from other notifications', () => {
    const session = new OvsdbSession(4);
    expect(session.receive({ kind: 'notification', method: 'update', params: ['m', { T: {} }] })).toEqual({
      kind: 'update',
      monitorId: 'm',
      updates: { T: {} },
    });
    expect(session.receive({ kind: 'notification', method: 'locked', params: ['l'] })).toMatchObject({
      kind: 'notified',
      method: 'locked',
    });
    expect(() => session.receive({ kind: 'notification', method: 'update', params: ['m', 7] })).toThrow(
      withCode('protocol'),
    );
  });

  it('knows the reply to a forgotten request as a late one, and refuses a reply to none', () => {
    const session = new OvsdbSession(4);
    const { id } = session.request('echo', []);
    session.forget(id);
    expect(session.receive({ kind: 'result', id, result: [] })).toEqual({ kind: 'late-reply', id });
    expect(() => session.receive({ kind: 'error', id: null, error: 'bad' })).toThrow(withCode('protocol'));
  });

  it('limits how many requests are pending', () => {
    const session = new OvsdbSession(1);
    const { id } = session.request('echo', []);
    expect(() => session.request('echo', [])).toThrow(withCode('too-many-pending'));
    session.forget(id);
    expect(() => session.request('echo', [])).not.toThrow();
  });

  it('names what was pending when it closes, and is then beyond use', () => {
    const session = new OvsdbSession(4);
    const { id } = session.request('echo', []);
    expect(session.close()).toEqual([id]);
    expect(() => session.request('echo', [])).toThrow(withCode('disconnected'));
    expect(() => session.receive({ kind: 'result', id, result: [] })).toThrow(withCode('disconnected'));
  });
});

import { describe, expect, it } from 'vitest';
import type { QmpMessage } from './messages.ts';
import { QmpSession } from './session.ts';

const greeting: QmpMessage = {
  kind: 'greeting',
  greeting: { version: { major: 7, minor: 2, micro: 22 }, packageVersion: '', capabilities: ['oob'] },
};

function readySession(maxPending = 4): QmpSession {
  const session = new QmpSession(maxPending);
  session.receive(greeting);
  const { id } = session.negotiate(['oob', 'unheard-of']);
  session.receive({ kind: 'return', id, value: {} });
  return session;
}

function decoded(bytes: Buffer): unknown {
  // The monitor takes a command as complete with its last brace: nothing of it may come before that, or after.
  expect(bytes.at(-1)).toBe('}'.charCodeAt(0));
  return JSON.parse(bytes.toString());
}

describe('QmpSession', () => {
  it('negotiates only what QEMU offers, and is ready when QEMU agrees', () => {
    const session = new QmpSession(4);
    expect(session.receive(greeting)).toMatchObject({ kind: 'greeted' });
    const { id, bytes } = session.negotiate(['oob', 'unheard-of']);
    expect(decoded(bytes)).toEqual({ execute: 'qmp_capabilities', arguments: { enable: ['oob'] }, id });
    expect(session.state).toBe('negotiating');
    session.receive({ kind: 'return', id, value: {} });
    expect(session.state).toBe('ready');
    expect(session.capabilities).toEqual(['oob']);
  });

  it('takes no command before it is ready, and no negotiation twice', () => {
    const session = new QmpSession(4);
    expect(() => session.negotiate([])).toThrow(/greeting/);
    expect(() => session.request('stop')).toThrow(/before negotiation/);
    session.receive(greeting);
    session.negotiate([]);
    expect(() => session.negotiate([])).toThrow(/negotiating/);
    expect(() => session.request('stop')).toThrow(/before negotiation/);
  });

  it('matches replies to commands by id, in any order', () => {
    const session = readySession();
    const stop = session.request('stop');
    const query = session.request('query-block', { a: 1 });
    expect(decoded(stop.bytes)).toEqual({ execute: 'stop', id: stop.id });
    expect(decoded(query.bytes)).toEqual({ execute: 'query-block', arguments: { a: 1 }, id: query.id });
    expect(session.receive({ kind: 'return', id: query.id, value: [] })).toEqual({
      kind: 'returned',
      id: query.id,
      value: [],
    });
    expect(session.receive({ kind: 'return', id: stop.id, value: {} })).toMatchObject({ id: stop.id });
    expect(session.pendingCount).toBe(0);
  });

  it("keeps QEMU's class and description of a failure", () => {
    const session = readySession();
    const { id } = session.request('migrate');
    const occurrence = session.receive({ kind: 'error', id, errorClass: 'GenericError', description: 'no' });
    expect(occurrence).toMatchObject({
      kind: 'failed',
      id,
      error: {
        code: 'command-failed',
        failure: { command: 'migrate', errorClass: 'GenericError', description: 'no' },
      },
    });
  });

  it('knows the reply to a forgotten command as a late one', () => {
    const session = readySession();
    const { id } = session.request('stop');
    session.forget(id);
    expect(session.receive({ kind: 'return', id, value: {} })).toEqual({ kind: 'late-reply', id });
  });

  it('writes out-of-band commands only if that was negotiated', () => {
    const session = readySession();
    expect(decoded(session.request('query-status', undefined, { outOfBand: true }).bytes)).toMatchObject({
      'exec-oob': 'query-status',
    });
    const plain = new QmpSession(4);
    plain.receive(greeting);
    plain.receive({ kind: 'return', id: plain.negotiate([]).id, value: {} });
    expect(() => plain.request('query-status', undefined, { outOfBand: true })).toThrow(
      /'oob' was not negotiated/,
    );
  });

  it('limits how many commands are pending', () => {
    const session = readySession(2);
    const first = session.request('a');
    session.request('b');
    expect(() => session.request('c')).toThrow(expect.objectContaining({ code: 'too-many-pending' }));
    session.forget(first.id);
    expect(() => session.request('c')).not.toThrow();
  });

  it.each<[string, QmpMessage]>([
    ['a second greeting', greeting],
    ['a reply without an id', { kind: 'return', id: undefined, value: {} }],
    [
      'an error without an id, as QEMU answers unreadable input',
      { kind: 'error', id: undefined, errorClass: 'GenericError', description: 'JSON parse error' },
    ],
  ])('refuses %s', (_what, message) => {
    expect(() => readySession().receive(message)).toThrow(expect.objectContaining({ code: 'protocol' }));
  });

  it('refuses anything before the greeting', () => {
    const event: QmpMessage = { kind: 'event', name: 'STOP', data: {}, timestampNs: 0n };
    expect(() => new QmpSession(4).receive(event)).toThrow(/no greeting/);
  });

  it('names what was pending when it closes, and is then beyond use', () => {
    const session = readySession();
    const { id } = session.request('stop');
    expect(session.close()).toEqual([id]);
    expect(() => session.request('cont')).toThrow(expect.objectContaining({ code: 'disconnected' }));
    expect(() => session.receive({ kind: 'return', id, value: {} })).toThrow(/after the end/);
  });
});

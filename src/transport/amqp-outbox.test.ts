import { describe, expect, it } from 'vitest';
import type { Message } from 'vscode-jsonrpc/node.js';

import { Outbox, type Publication } from './amqp-outbox.ts';

/** An outbox whose turn ends when the test says so. */
function outbox() {
  const published: Publication[] = [];
  let flush: () => void = () => undefined;
  const box = new Outbox(
    (publication) => published.push(publication),
    (work) => (flush = work),
  );
  return { box, published, endTurn: () => flush() };
}

const request = (id: number, method: string, params: unknown) =>
  ({ jsonrpc: '2.0', id, method, params }) as Message;

describe('Outbox', () => {
  it('makes one publication of what is equal but for the id', () => {
    const { box, published, endTurn } = outbox();
    const first = box.add('h1', 0, request(7, 'drain', { boundMs: 5 }));
    const second = box.add('h2', 0, request(9, 'drain', { boundMs: 5 }));
    endTurn();
    expect(second).toBe(first);
    expect(published).toEqual([
      {
        slot: 0,
        targets: ['h1', 'h2'],
        message: { jsonrpc: '2.0', id: first, method: 'drain', params: { boundMs: 5 } },
      },
    ]);
  });

  it('keeps apart what differs, in parameters or in the slot', () => {
    const { box, published, endTurn } = outbox();
    box.add('h1', 0, request(1, 'cut', { atNs: '1' }));
    box.add('h2', 0, request(1, 'cut', { atNs: '2' }));
    box.add('h3', 1, request(1, 'cut', { atNs: '1' }));
    endTurn();
    expect(published.map(({ targets }) => targets)).toEqual([['h1'], ['h2'], ['h3']]);
  });

  it('sends the same twice where a session asks for it twice', () => {
    const { box, published, endTurn } = outbox();
    const ids = [1, 2].map((id) => box.add('h1', 0, request(id, 'renew', {})));
    endTurn();
    expect(new Set(ids).size).toBe(2);
    expect(published.map(({ targets }) => targets)).toEqual([['h1'], ['h1']]);
  });

  it('never lets a message overtake an earlier one of the same session', () => {
    const { box, published, endTurn } = outbox();
    box.add('h1', 0, request(1, 'save', {}));
    box.add('h2', 0, request(1, 'renew', {}));
    box.add('h1', 0, request(2, 'renew', {}));
    box.add('h2', 0, request(2, 'save', {}));
    endTurn();
    const methodsOf = (host: string) =>
      published
        .filter(({ targets }) => targets.includes(host))
        .map(({ message }) => (message as { method: string }).method);
    expect(methodsOf('h1')).toEqual(['save', 'renew']);
    expect(methodsOf('h2')).toEqual(['renew', 'save']);
  });

  it('does not keep what has left', () => {
    const { box, published, endTurn } = outbox();
    box.add('h1', 0, request(1, 'renew', {}));
    endTurn();
    box.add('h2', 0, request(1, 'renew', {}));
    endTurn();
    expect(published.map(({ targets }) => targets)).toEqual([['h1'], ['h2']]);
  });
});

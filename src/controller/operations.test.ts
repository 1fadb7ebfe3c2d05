import { describe, expect, it } from 'vitest';

import { StaghornError } from '../errors/index.ts';
import type { Operation, OperationEvent } from '../protocol/resources.ts';
import { Operations, type OperationContext } from './operations.ts';

const silent = () => undefined;
const log = { debug: silent, info: silent, warn: silent, error: silent };

function start(work: (context: OperationContext) => Promise<null>) {
  const ended: Operation[] = [];
  const operations = new Operations(log, (operation) => ended.push(operation));
  const { id } = operations.start({ kind: 'verify', experiment: 'e', snapshot: null, work });
  return { operations, id, ended };
}

async function collect(events: AsyncIterable<OperationEvent>): Promise<OperationEvent[]> {
  const all: OperationEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

const step = (name: string) => ({ step: name, message: name });

describe('an operation', () => {
  it('gives all of its events, those of the past and those to come, and ends with how it ended', async () => {
    let goOn!: () => void;
    const waiting = new Promise<void>((resolve) => (goOn = resolve));
    const { operations, id } = start(async ({ report }) => {
      report(step('first'));
      await waiting;
      report(step('second'));
      return null;
    });
    const events = collect(operations.events(id, {}));
    goOn();
    expect((await events).map(({ type, progress }) => progress?.step ?? type)).toEqual([
      'first',
      'second',
      'ended',
    ]);
    const later = await collect(operations.events(id, { afterId: 1 }));
    expect(later.map((event) => event.id)).toEqual([2, 3]);
  });

  it('that fails says why, as problem details', async () => {
    const { operations, id, ended } = start(async () => {
      throw new StaghornError('disk-full', 'no room', { context: { host: 'h1' } });
    });
    await collect(operations.events(id, {}));
    expect(operations.get(id)).toMatchObject({
      state: 'failed',
      error: { type: '/problems/disk-full', status: 507, detail: 'no room', host: 'h1' },
    });
    expect(ended.map((operation) => operation.id)).toEqual([id]);
  });

  it('that is cancelled is told so, and ends as cancelled', async () => {
    const { operations, id } = start(
      ({ signal }) =>
        new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason as StaghornError)),
        ),
    );
    operations.cancel(id);
    await collect(operations.events(id, {}));
    expect(operations.get(id)).toMatchObject({ state: 'cancelled', error: { code: 'cancelled' } });
  });

  it('is looked for in vain under another id', () => {
    const { operations } = start(async () => null);
    expect(() => operations.get('nothing')).toThrow(expect.objectContaining({ code: 'not-found' }) as Error);
  });

  it('that reads a snapshot keeps it from being removed until it has ended', async () => {
    const operations = new Operations(log, silent);
    const conflict = expect.objectContaining({ code: 'conflict' }) as Error;
    let goOn!: () => void;
    const work = () => new Promise<null>((resolve) => (goOn = () => resolve(null)));
    const { id } = operations.start({ kind: 'fork', experiment: 'e', snapshot: 's', work });
    expect(() => operations.requireUnread('s')).toThrow(conflict);
    expect(() => operations.requireUnread('another')).not.toThrow();
    goOn();
    await operations.ended(id);
    expect(() => operations.requireUnread('s')).not.toThrow();
  });
});

import { describe, expect, it } from 'vitest';
import { runInGuestHost } from './guest-host.ts';
import type { GuestMessage, GuestResult } from './guest-message.ts';
import { suites } from './suites.ts';

const LIMIT_SECONDS = Number(process.env.KERNEL_TEST_LIMIT_SECONDS ?? 1200);
const { KERNEL_TEST_SUITES: only, KERNEL_TEST_PATTERN: pattern, KERNEL_TEST_KEEP: keep } = process.env;

const chosen = suites.filter((suite) => only === undefined || suite.includes(only));
const messages: GuestMessage[] = [];

// The guest runs while tests are collected, so that each of its results is a test of this report.
const run = await runInGuestHost({
  checkout: process.cwd(),
  suites: chosen,
  pattern,
  limitSeconds: LIMIT_SECONDS,
  keep: keep !== undefined,
  onMessage: (message) => {
    messages.push(message);
    if (keep !== undefined) console.error(JSON.stringify(message).replaceAll('\\n', '\n'));
  },
});

const resultsOf = (suite: string) =>
  messages.filter((message): message is GuestResult => message.kind === 'result' && message.suite === suite);

describe(`on Linux ${run.kernel} in a guest that plays a host`, () => {
  it('every suite comes to its end', () => {
    const last = messages.findLast(({ kind }) => kind === 'began');
    const where = last?.kind === 'began' ? `${last.suite}: ${last.test}` : 'nowhere';
    expect(run.complete, `it got to ${where}; its console ends with:\n${run.console}`).toBe(true);
    const ends = messages.filter((message) => message.kind === 'suite');
    expect(ends).toEqual(chosen.map((suite) => ({ kind: 'suite', suite, errors: [] })));
  });

  // A suite without results is told of above.
  describe.each(chosen.filter((suite) => resultsOf(suite).length > 0))('%s', (suite) => {
    for (const { test, outcome, errors } of resultsOf(suite)) {
      it(test, () => {
        expect(outcome, errors.join('\n\n')).toBe('passed');
      });
    }
  });
});

/**
 * What suites import as "vitest" in the guest: Vitest's own runner and assertions, without the rest of it, which takes
 * a minute to start under TCG.
 */
import {
  ASYMMETRIC_MATCHERS_OBJECT,
  chai,
  GLOBAL_EXPECT,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  setState,
} from '@vitest/expect';
import type { ExpectStatic } from '@vitest/expect';

export { afterAll, afterEach, beforeAll, beforeEach, describe, it, test } from '@vitest/runner';

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);

const globals = globalThis as unknown as Record<symbol, object>;
const assertion = (value: unknown, message?: string) => chai.expect(value, message);
export const expect = Object.assign(
  assertion,
  chai.expect,
  globals[ASYMMETRIC_MATCHERS_OBJECT],
) as unknown as ExpectStatic;
globals[GLOBAL_EXPECT] = expect;
setState({ assertionCalls: 0, isExpectingAssertions: false, expectedAssertionsNumber: null }, expect);

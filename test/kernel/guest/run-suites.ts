import { writeSync } from 'node:fs';
import { startTests } from '@vitest/runner';
import type { Test, VitestRunner } from '@vitest/runner';
import { getTestName } from '@vitest/runner/utils';
import type { GuestMessage } from '../guest-message.ts';

export type Suites = Readonly<Record<string, () => Promise<unknown>>>;

const STANDARD_OUTPUT = 1;
/** What the serial port takes in a moment. */
const MAX_ERROR_CHARACTERS = 2000;
/** Under TCG everything takes about twenty times as long. */
const TEST_LIMIT_MS = 120_000;

function tell(message: GuestMessage): void {
  writeSync(STANDARD_OUTPUT, `${JSON.stringify(message)}\n`);
}

function report(test: Test): void {
  const { state, duration = 0, errors = [] } = test.result ?? {};
  tell({
    kind: 'result',
    suite: test.file.name,
    test: getTestName(test, ' > ').replace(`${test.file.name} > `, ''),
    outcome: state === 'pass' ? 'passed' : state === 'fail' ? 'failed' : 'skipped',
    durationMs: Math.round(duration),
    errors: errors.map(({ message, diff, stack }) =>
      [message, diff, stack].map((text) => text?.slice(0, MAX_ERROR_CHARACTERS) ?? '').join('\n'),
    ),
  });
}

/** Vitest's defaults, but for the limits of time (VitestRunnerConfig in @vitest/runner). */
function runnerOf(suites: Suites, pattern: RegExp | undefined): VitestRunner {
  return {
    config: {
      root: process.cwd(),
      name: undefined,
      setupFiles: [],
      passWithNoTests: false,
      testNamePattern: pattern,
      allowOnly: true,
      sequence: { shuffle: false, concurrent: false, seed: 0, hooks: 'stack', setupFiles: 'list' },
      chaiConfig: undefined,
      maxConcurrency: 1,
      testTimeout: TEST_LIMIT_MS,
      hookTimeout: TEST_LIMIT_MS,
      retry: 0,
      includeTaskLocation: false,
      tags: [],
      tagsFilter: undefined,
      strictTags: false,
    },
    importFile: (path) => suites[path.replace(`${process.cwd()}/`, '')]?.(),
    onBeforeRunTask: (test) => {
      tell({ kind: 'began', suite: test.file.name, test: getTestName(test, ' > ') });
    },
    onAfterRunTask: report,
  };
}

/** Runs suites in this one process and tells each result by a line of JSON on standard output. */
export async function runSuites(suites: Suites, pattern: string | undefined): Promise<void> {
  const runner = runnerOf(suites, pattern === undefined ? undefined : new RegExp(pattern));
  for (const path of Object.keys(suites)) {
    const [file] = await startTests([`${process.cwd()}/${path}`], runner);
    const errors = (file?.result?.errors ?? []).map(({ message, stack }) => stack ?? message);
    const tests = file?.tasks.length ?? 0;
    if (tests === 0) errors.push('it has no tests');
    tell({ kind: 'suite', suite: path, errors });
  }
  tell({ kind: 'end' });
}

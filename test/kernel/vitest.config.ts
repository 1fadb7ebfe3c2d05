import { defineConfig } from 'vitest/config';

// One file, which boots a guest and has a test for each result of the suites in there (test/kernel/suites.ts).
export default defineConfig({
  test: {
    root: new URL('../..', import.meta.url).pathname,
    include: ['test/kernel/*.test.ts'],
    reporters: ['default'],
  },
});

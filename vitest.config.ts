import { configDefaults, defineConfig } from 'vitest/config';

const shared = { testTimeout: 30_000, hookTimeout: 120_000 };
/** Labs that something is done to, and that are waited for: for leases to run out, for snapshots to come due. */
const recovery = ['bad-luck', 'crashed-*', 'moments'].map((name) => `test/e2e/${name}.test.ts`);
// The second of them boots a machine, which keeps one processor busy for two minutes.
recovery.push('test/transport/amqp-lab.test.ts', 'test/kernel/kernel.test.ts');
/** Whole systems: labs of VMs, which are judged by what they notice. */
const systems = ['test/e2e/**/*.test.ts', 'test/lab/lab.test.ts'];

export default defineConfig({
  test: {
    reporters: ['default'],
    projects: [
      {
        test: {
          ...shared,
          name: 'parts',
          include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
          exclude: [...configDefaults.exclude, ...recovery, ...systems],
          maxWorkers: 3,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...shared,
          name: 'recovery',
          include: recovery,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...shared,
          name: 'systems',
          include: systems,
          exclude: [...configDefaults.exclude, ...recovery],
          // One after another, when the others are done: two at once make the switches drop frames on two cores.
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});

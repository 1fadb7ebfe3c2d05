import { configDefaults, defineConfig } from 'vitest/config';

const shared = { testTimeout: 30_000, hookTimeout: 120_000 };
/** Whole systems: labs of VMs, which are judged by what they notice. */
const systems = ['test/e2e/**/*.test.ts', 'test/transport/amqp-lab.test.ts', 'test/lab/lab.test.ts'];

export default defineConfig({
  test: {
    reporters: ['default'],
    projects: [
      {
        test: {
          ...shared,
          name: 'parts',
          include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
          // `npm run test:kernel` boots a machine and takes minutes.
          exclude: [...configDefaults.exclude, 'test/kernel/**', ...systems],
          maxWorkers: 3,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...shared,
          name: 'systems',
          include: systems,
          // They share two cores: one after another, when the parts are done.
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});

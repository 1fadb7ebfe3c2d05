import { configDefaults, defineConfig } from 'vitest/config';

// End-to-end tests share two cores and the machine's network namespaces: files run one after another.
export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // `npm run test:kernel`: it boots a machine and takes minutes.
    exclude: [...configDefaults.exclude, 'test/kernel/**'],
    fileParallelism: false,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    reporters: ['default'],
  },
});

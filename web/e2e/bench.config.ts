import { defineConfig } from 'vitest/config';

/** Programs, not tests: they take minutes. See README.md beside this file. */
export default defineConfig({
  test: {
    environment: 'node',
    include: ['e2e/**/*.bench.ts'],
    fileParallelism: false,
    disableConsoleIntercept: true,
    testTimeout: 3_600_000,
    hookTimeout: 300_000,
  },
});

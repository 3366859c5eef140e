import { createRequire } from 'node:module';
import type { Rolldown } from 'vite';
import solid from 'vite-plugin-solid';
import { defineConfig } from 'vitest/config';

const { resolve } = createRequire(import.meta.url);

// `npm run dev` shows the pages from source; the data come from a running `ictus serve`.
const server = process.env.ICTUS_URL ?? 'http://127.0.0.1:8080';

/** The codecs ask for `fs` and `path` only where they run in Node: nothing to warn of. */
const rolldownOptions: Rolldown.RolldownOptions = {
  checks: { pluginTimings: false },
  onLog(level, log, otherwise) {
    const codec = /externalized for browser compatibility.*@cornerstonejs\/codec-/s;
    if (!codec.test(log.message)) otherwise(level, log);
  },
};

export default defineConfig({
  base: '/',
  plugins: [solid()],
  // Vite replaces Node's `events` and `url` by empty stubs; Cornerstone's dependencies call them.
  resolve: { alias: { events: resolve('events/'), url: resolve('url/') } },
  optimizeDeps: { exclude: ['@cornerstonejs/dicom-image-loader'], include: ['dicom-parser'] },
  worker: { format: 'es', rolldownOptions },
  server: { proxy: { '/api': server, '/dicom-web': server } },
  build: {
    target: 'es2022',
    sourcemap: false,
    // Cornerstone with vtk.js is one chunk of some megabytes; only the study page loads it.
    chunkSizeWarningLimit: 5000,
    // No inlined `data:` assets: the server's content security policy can stay strict.
    assetsInlineLimit: 0,
    // What is bundled, and under which licence.
    license: { fileName: 'licenses.md' },
    rolldownOptions,
  },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
});

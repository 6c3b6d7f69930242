// Part of `npm run build`: the command as one file. Loading its 150 files one by one takes longer than most commands do.
import { rmSync } from 'node:fs';
import { build } from 'esbuild';

const DIRECTORY = 'dist/server/cli';

await build({
  entryPoints: [`${DIRECTORY}/main.js`],
  outfile: `${DIRECTORY}/cronium.cjs`,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  minify: true,
  sourcemap: true,
  sourcesContent: false,
  // Programs with parts that are no JavaScript: loaded from node_modules by the few commands that need them.
  external: ['dockerode', 'level', 'bufferutil'],
  // A script of node:vm can only require().
  supported: { 'dynamic-import': false },
  // Paths are made from it: a module finds what it looks for as it would from its own place, because none looks for
  // anything beside itself.
  define: { 'import.meta.url': 'bundleUrl' },
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  logLevel: 'warning',
});
rmSync(`${DIRECTORY}/cronium.cache`, { force: true });

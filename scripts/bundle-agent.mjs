// Bundles the agent for deployment: one file of JavaScript, and the native addons it loads, beside it.
import { build } from 'esbuild';
import { copyFileSync, mkdirSync } from 'node:fs';

const out = 'dist/agent-bundle';
mkdirSync(out, { recursive: true });
await build({
  entryPoints: ['src/agent/main.ts'],
  outfile: `${out}/agent.cjs`,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  legalComments: 'inline',
  // The bundle is CommonJS, where import.meta is empty: modules that look for files beside them get the bundle's URL.
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  define: { 'import.meta.url': 'bundleUrl' },
  plugins: [
    {
      // ioctl-native finds its prebuilt addon through node-gyp-build, which a bundle cannot: it is shipped beside.
      name: 'ioctl-native',
      setup(bundle) {
        bundle.onResolve({ filter: /^node-gyp-build$/ }, () => ({
          path: 'node-gyp-build',
          namespace: 'beside',
        }));
        bundle.onLoad({ filter: /.*/, namespace: 'beside' }, () => ({
          contents:
            "module.exports = () => require('node:module').createRequire(bundleUrl)('./ioctl-native.node');",
        }));
      },
    },
  ],
});
copyFileSync('build/Release/staghorn.node', `${out}/staghorn.node`);
copyFileSync('node_modules/ioctl-native/prebuilds/linux-x64/node.napi.node', `${out}/ioctl-native.node`);

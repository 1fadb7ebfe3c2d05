#!/usr/bin/env bash
# Builds what has changed: the addon (build/Release), the compiled sources (dist) and the agent bundle (dist/agent).
set -euo pipefail
cd "$(dirname "$0")/.."

newer() { # newer STAMP PATH...: is anything under PATH newer than STAMP?
  local stamp=$1
  shift
  [ ! -e "$stamp" ] || [ -n "$(find "$@" -newer "$stamp" -print -quit)" ]
}

if newer build/Release/staghorn.node native binding.gyp; then
  echo 'building the native addon' >&2
  JOBS=max npx --no-install node-gyp rebuild --loglevel=error >build.log 2>&1 || { cat build.log >&2; exit 1; }
  rm -f build.log
fi

if newer dist/.stamp src tsconfig.json tsconfig.build.json package.json scripts/build.sh build/Release/staghorn.node; then
  echo 'compiling' >&2
  rm -rf dist
  npx --no-install tsc -p tsconfig.build.json
  if [ -f src/agent/main.ts ]; then node scripts/bundle-agent.mjs; fi
  touch dist/.stamp
fi

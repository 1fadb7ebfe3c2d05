#!/usr/bin/env bash
# Tests with the addon under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the checkout.
# Arguments: which tests, as for Vitest; by default all that use the addon on one machine without labs.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v patchelf >/dev/null || { echo 'sanitize: apt-get install patchelf' >&2; exit 1; }
[ $# -gt 0 ] || set -- src/native src/network src/store test/native test/network test/archive test/agent test/vmm

copy=$(mktemp -d "${TMPDIR:-/tmp}/staghorn-sanitized-XXXXXX")
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -cf - | tar -xf - -C "$copy"
ln -s "$PWD/node_modules" "$copy/node_modules"
cd "$copy"
flags='-fsanitize=address,undefined -fno-omit-frame-pointer -g'
# The addon alone: none of the tests by default starts an agent from its bundle.
JOBS=max CXXFLAGS=$flags LDFLAGS=$flags npx --no-install node-gyp rebuild --loglevel=error

# The sanitizer has to be the first library of the process. LD_PRELOAD would put it into QEMU and Open vSwitch too.
mkdir bin-sanitized
cp "$(command -v node)" bin-sanitized/node
patchelf --add-needed "$(basename "$(readlink -f "$(g++ -print-file-name=libasan.so)")")" bin-sanitized/node
export PATH="$copy/bin-sanitized:$PATH"

# V8 frees little when it ends. Whatever is found is kept in files: many a process ends unseen.
mkdir reports
export ASAN_OPTIONS="detect_leaks=0:log_path=$copy/reports/asan"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$copy/reports/ubsan"
failed=0
node node_modules/vitest/vitest.mjs run "$@" || failed=1
if [ -n "$(ls reports)" ]; then
  cat reports/* >&2
  failed=1
fi
exit $failed

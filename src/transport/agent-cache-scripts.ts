import type { Bundle } from './agent-bundle.ts';
import { transportLimits } from './limits.ts';
import { shellQuote } from './shell-quote.ts';

function checksums(bundle: Bundle): string {
  return bundle.files.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join('');
}

// Of sha256sum only what busybox has too.
function checkFunction(bundle: Bundle): string {
  return `
is_whole() {
  [ -d "$1" ] && (cd "$1" && sha256sum -c - >/dev/null 2>&1) <<'CHECKSUMS'
${checksums(bundle)}CHECKSUMS
}
`;
}

/** Prints "cached" or "missing"; a version that is used counts as new when old ones are removed. */
export function cachedScript(directory: string, bundle: Bundle): string {
  const quoted = shellQuote(directory);
  return `${checkFunction(bundle)}
if is_whole ${quoted}; then touch ${quoted}; echo cached; else echo missing; fi
`;
}

/** Prints a fresh directory that only the user who logged in can write to. */
export const stagingScript = 'umask 077\nmktemp -d "${TMPDIR:-/tmp}/staghorn-upload-XXXXXXXX"\n';

/**
 * Takes what was uploaded into the cache, and the upload away: copied first, so that what is checked is out of the user's reach, then
 * renamed into its place in one step. If another upload was faster, its result is as good.
 */
export function installScript({
  base,
  bundle,
  staging,
}: {
  base: string;
  bundle: Bundle;
  staging: string;
}): string {
  const modes = bundle.files.map(({ name, mode }) => `chmod ${mode.toString(8)} "$fresh/${name}"`);
  return `set -eu
umask 022
base=${shellQuote(base)}
target="$base/${bundle.hash}"
${checkFunction(bundle)}
mkdir -p "$base"
fresh=$(mktemp -d "$base/.incoming-XXXXXXXX")
staging=${shellQuote(staging)}
trap 'rm -rf "$fresh" "$staging"' EXIT
cp "$staging"/* "$fresh/"
${modes.join('\n')}
chmod 755 "$fresh"
is_whole "$fresh" || { echo "the uploaded files are not what was sent (is the disk full?)" >&2; exit 1; }
if [ -e "$target" ] && ! is_whole "$target"; then
  # Named by this upload, so that two of them never take away the same name.
  mv "$target" "$fresh.damaged" 2>/dev/null || true
  rm -rf "$fresh.damaged"
fi
mv -T "$fresh" "$target" 2>/dev/null || is_whole "$target" || { echo "cannot rename $fresh to $target" >&2; exit 1; }
touch "$target"
cd "$base"
ls -1t | grep -E '^[0-9a-f]{64}$' | tail -n +${transportLimits.keptVersions + 1} | while read -r old; do rm -rf "./$old"; done
find . -maxdepth 1 -name '.incoming-*' -mmin +1440 -exec rm -rf {} +
`;
}

import { StaghornError } from '../errors/index.ts';
import { shellQuote } from './shell-quote.ts';
import type { SshSession } from './ssh-session.ts';

export interface NodeFound {
  readonly path: string;
  /** As `node --version` says it, without the "v". */
  readonly version: string;
}

/** What a host is, as far as running the agent goes. */
export interface HostProbe {
  readonly isRoot: boolean;
  readonly user: string;
  readonly home: string;
  /** `uname -s` and `uname -m`. */
  readonly system: string;
  readonly machine: string;
  /** "2.36" under the GNU C library, null under any other. */
  readonly glibcVersion: string | null;
  /** In the order in which they were looked for. */
  readonly nodes: readonly NodeFound[];
}

export interface ProbeOptions {
  /** Looked at before all other places. */
  readonly nodePath?: string | undefined;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

// The script comes on standard input, so that the user's login shell need not be a POSIX one.
function probeScript(nodePath: string | undefined): string {
  return `
exec 2>/dev/null
echo "uid=$(id -u)"
echo "user=$(id -un)"
echo "home=$HOME"
echo "system=$(uname -s)"
echo "machine=$(uname -m)"
echo "glibc=$(getconf GNU_LIBC_VERSION || ldd --version </dev/null | head -n 1)"
configured=${shellQuote(nodePath ?? '')}
for node in "$configured" "$(command -v node)" "$(command -v nodejs)" /usr/local/bin/node /usr/bin/node \\
  /usr/bin/nodejs /opt/node/bin/node /opt/nodejs/bin/node /usr/local/node/bin/node /snap/bin/node \\
  "$HOME"/.local/bin/node "$HOME"/.nvm/versions/node/*/bin/node "$HOME"/.volta/bin/node; do
  case "$node" in /*) [ -x "$node" ] && echo "node=$node $("$node" --version </dev/null)" ;; esac
done
exit 0
`;
}

/** @throws StaghornError 'host-unfit' if the host has no POSIX shell to ask, or what running a command throws */
export async function probeHost(session: SshSession, options: ProbeOptions): Promise<HostProbe> {
  const { nodePath, timeoutMs, signal } = options;
  const { code, stdout, stderr } = await session.run('sh -s', {
    timeoutMs,
    signal,
    input: probeScript(nodePath),
  });
  const fields = new Map<string, string>();
  const nodes: NodeFound[] = [];
  for (const line of stdout.split('\n')) {
    const found = /^node=(\/.*) v(\d+\.\d+\.\d+)\S*$/.exec(line);
    if (found !== null) nodes.push({ path: found[1] ?? '', version: found[2] ?? '' });
    const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined && name !== 'node') fields.set(name, value);
  }
  const field = (name: string): string => {
    const value = fields.get(name);
    if (value !== undefined && value !== '') return value;
    const text = `host ${session.host}: asking it for its ${name} failed (exit code ${code}): ${stderr.trim() || stdout.trim()}`;
    throw new StaghornError('host-unfit', text, { context: { host: session.host } });
  };
  return {
    isRoot: field('uid') === '0',
    user: field('user'),
    home: field('home'),
    system: field('system'),
    machine: field('machine'),
    glibcVersion:
      /(?:glibc|GLIBC|GNU libc)[^\d]*(?:.*\s)?(\d+\.\d+)\s*$/.exec(fields.get('glibc') ?? '')?.[1] ?? null,
    nodes: nodes.filter(({ path }, index) => nodes.findIndex((other) => other.path === path) === index),
  };
}

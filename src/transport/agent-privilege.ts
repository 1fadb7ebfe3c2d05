import { StaghornError } from '../errors/index.ts';
import type { HostProbe } from './agent-probe.ts';
import type { SshSession } from './ssh-session.ts';

/** How the agent's commands get their rights. */
export interface Privilege {
  readonly kind: 'root' | 'sudo' | 'user';
  /** What goes in front of a command. */
  readonly prefix: readonly string[];
  /** Where cached versions of the agent lie. */
  readonly cacheDirectory: string;
}

export interface PrivilegeOptions {
  /** False: run as the user who logs in, whoever that is. */
  readonly needsRoot: boolean;
  /** Instead of /var/cache/staghorn or ~/.cache/staghorn. */
  readonly cacheDirectory?: string | undefined;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

const systemCache = '/var/cache/staghorn';

/** @throws StaghornError 'privilege-missing' that names host, user and the line for sudoers */
export async function findPrivilege(
  session: SshSession,
  probe: HostProbe,
  options: PrivilegeOptions,
): Promise<Privilege> {
  if (probe.isRoot)
    return { kind: 'root', prefix: [], cacheDirectory: options.cacheDirectory ?? systemCache };
  if (!options.needsRoot)
    return { kind: 'user', prefix: [], cacheDirectory: `${probe.home}/.cache/staghorn` };
  const { timeoutMs, signal } = options;
  const { code, stdout, stderr } = await session.run('sudo -n id -u', { timeoutMs, signal });
  if (code === 0 && stdout.trim() === '0') {
    return { kind: 'sudo', prefix: ['sudo', '-n'], cacheDirectory: options.cacheDirectory ?? systemCache };
  }
  const said = stderr.trim() || stdout.trim() || `exit code ${code}`;
  const text =
    `host ${session.host}: user ${probe.user} is not root, and sudo without a password does not work (${said}). ` +
    `Log in as root, or add to /etc/sudoers.d/staghorn: ${probe.user} ALL=(root) NOPASSWD: ALL`;
  throw new StaghornError('privilege-missing', text, { context: { host: session.host } });
}

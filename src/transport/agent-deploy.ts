import { StaghornError } from '../errors/index.ts';
import { describeBundle, type BundleFile } from './agent-bundle.ts';
import { ensureCached, type CacheOptions } from './agent-cache.ts';
import { chooseNode, localNode, oldestNode, type LocalNode } from './agent-node.ts';
import { findPrivilege, type Privilege } from './agent-privilege.ts';
import { probeHost } from './agent-probe.ts';
import { shellCommand } from './shell-quote.ts';
import type { SshSession } from './ssh-session.ts';

export interface DeployOptions {
  /** What the agent consists of. The first file is what Node.js is told to run. */
  readonly files: readonly BundleFile[];
  /** A Node.js on the host, looked at before the usual places. */
  readonly nodePath?: string | undefined;
  /** Default true: the agent must be root, by login or by sudo. False: it runs as the user who logs in. */
  readonly needsRoot?: boolean | undefined;
  /** Where the host keeps versions of the agent; default: /var/cache/staghorn, for other users ~/.cache/staghorn. */
  readonly cacheDirectory?: string | undefined;
  /** For each step on the host; default 60 000. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: CacheOptions['onProgress'];
  /** The Node.js to send where there is none; default: the one that runs this. */
  readonly localNode?: LocalNode | undefined;
}

export interface DeployedAgent {
  readonly directory: string;
  /** What starts the agent: program and arguments, after sudo where that is needed. */
  readonly command: readonly string[];
  readonly privilege: Privilege['kind'];
  /** True if the agent's files had to be sent. */
  readonly uploaded: boolean;
  readonly node: { readonly path: string; readonly uploaded: boolean };
}

const defaultStepTimeoutMs = 60_000;

/**
 * Brings the agent to a host, if it is not there yet.
 * @throws StaghornError 'host-unfit', 'privilege-missing', 'invalid-input' (a file that cannot be read), or what
 *   running a command throws
 */
export async function deployAgent(session: SshSession, options: DeployOptions): Promise<DeployedAgent> {
  const {
    files,
    nodePath,
    cacheDirectory,
    signal,
    onProgress,
    needsRoot = true,
    timeoutMs = defaultStepTimeoutMs,
  } = options;
  const entry = files[0];
  if (entry === undefined) throw new TypeError('the agent consists of at least one file');
  const probe = await probeHost(session, { nodePath, timeoutMs, signal });
  if (probe.system !== 'Linux') {
    const text = `host ${session.host} runs ${probe.system}; the agent needs Linux`;
    throw new StaghornError('host-unfit', text, { context: { host: session.host } });
  }
  const privilege = await findPrivilege(session, probe, { needsRoot, cacheDirectory, timeoutMs, signal });
  const choice = chooseNode(session.host, probe, () => options.localNode ?? localNode());
  const cacheOptions = { timeoutMs, signal, onProgress };
  const node =
    choice.kind === 'host'
      ? { path: choice.path, uploaded: false }
      : await sendNode(session, privilege, choice.path, cacheOptions);
  const bundle = await describeBundle(files);
  const { directory, uploaded } = await ensureCached(session, privilege, 'agent', bundle, cacheOptions);
  const command = [...privilege.prefix, node.path, `${directory}/${entry.name}`];
  return { directory, command, privilege: privilege.kind, uploaded, node };
}

async function sendNode(session: SshSession, privilege: Privilege, path: string, options: CacheOptions) {
  const bundle = await describeBundle([{ name: 'node', path, mode: 0o755 }]);
  const { directory, uploaded } = await ensureCached(session, privilege, 'node', bundle, options);
  const node = `${directory}/node`;
  // Only trying it shows a library that this Node.js was linked to and the host lacks, or a file system without exec.
  const { code, stderr } = await session.run(shellCommand([...privilege.prefix, node, '--version']), options);
  if (code === 0) return { path: node, uploaded };
  const text =
    `host ${session.host} has no Node.js that fits, and the controller's does not run there (${stderr.trim()}). ` +
    `Install Node.js ${oldestNode.major}.${oldestNode.minor} or newer there, or name the path of one`;
  throw new StaghornError('host-unfit', text, { context: { host: session.host } });
}

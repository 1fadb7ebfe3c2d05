import { StaghornError } from '../errors/index.ts';
import { transportLimits } from './limits.ts';
import { unlessAborted, withDeadline } from './deadline.ts';
import { connectTcp, spawnProxyCommand, unreachable, type SshCarrier } from './ssh-carrier.ts';
import { handshake } from './ssh-handshake.ts';
import { HostKeyVerifier } from './ssh-host-key.ts';
import { Identities } from './ssh-identities.ts';
import { SshSession } from './ssh-session.ts';
import { resolveSshSettings, type SshSettings, type SshTarget } from './ssh-settings.ts';

export interface OpenSshOptions extends SshTarget {
  /** For everything until the user is logged in, jump hosts included. A shorter ConnectTimeout counts. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Logs in to a host as ssh(1) would by ssh_config(5), with keys only, and with StrictHostKeyChecking always on.
 * @throws StaghornError 'host-unreachable', 'host-key-mismatch', 'authentication-failed', 'invalid-input'
 *   (ssh_config), 'cancelled'
 */
export async function openSshSession(options: OpenSshOptions): Promise<SshSession> {
  const { timeoutMs, signal } = options;
  return open(options, { hops: undefined, depth: 0, timeoutMs, signal });
}

interface Route {
  /** What is left of a ProxyJump that is being followed; undefined: what ssh_config says. */
  readonly hops: readonly string[] | undefined;
  readonly depth: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

async function open(target: SshTarget, route: Route): Promise<SshSession> {
  const settings = resolveSshSettings(target);
  const timeoutMs = Math.min(route.timeoutMs, settings.connectTimeoutMs ?? Infinity);
  const late = () => unreachable(settings, `no answer within ${timeoutMs} ms`);
  return withDeadline({ timeoutMs, signal: route.signal, late }, async (signal) => {
    const verifier = new HostKeyVerifier(settings);
    const identities = await unlessAborted(Identities.load(settings), signal);
    const carrier = await openCarrier(settings, { ...route, timeoutMs, signal });
    const client = await handshake({ settings, carrier, verifier, identities }, signal);
    return new SshSession(client, settings, carrier);
  });
}

async function openCarrier(
  settings: SshSettings,
  route: Route & { signal: AbortSignal },
): Promise<SshCarrier> {
  const hops = route.hops ?? settings.proxyJump;
  const last = hops.at(-1);
  if (last !== undefined)
    return jump(settings, last, { ...route, hops: hops.length > 1 ? hops.slice(0, -1) : undefined });
  if (settings.proxyCommand !== undefined && route.hops === undefined)
    return spawnProxyCommand(settings.proxyCommand);
  return connectTcp(settings, route.signal);
}

/** ProxyJump of ssh_config(5): the last hop forwards to the host, and is itself reached by the hops before it. */
async function jump(
  settings: SshSettings,
  hop: string,
  route: Route & { signal: AbortSignal },
): Promise<SshCarrier> {
  if (route.depth >= transportLimits.maxSshConfigDepth) {
    const text = `ProxyJump for host ${settings.alias} goes through more than ${route.depth} hosts; does it loop?`;
    throw new StaghornError('invalid-input', text, { context: { host: settings.alias } });
  }
  const session = await open(parseHop(hop, settings), { ...route, depth: route.depth + 1 });
  try {
    const stream = await unlessAborted(session.forward(settings.hostName, settings.port), route.signal);
    stream.on('error', () => undefined);
    const close = () => {
      stream.destroy();
      void session.close();
    };
    void session.closed.then(() => stream.destroy());
    return { stream, describe: () => ` (through ${hop})`, close };
  } catch (error) {
    await session.close();
    throw error;
  }
}

// [user@]host[:port] or ssh://[user@]host[:port], an IPv6 address in brackets.
function parseHop(hop: string, { alias, configFile }: SshSettings): SshTarget {
  const parts =
    /^(?:ssh:\/\/)?(?:(?<user>[^@]+)@)?(?:\[(?<address>[^\]]+)\]|(?<name>[^:]+))(?::(?<port>\d{1,5}))?\/?$/.exec(
      hop,
    );
  const host = parts?.groups?.['address'] ?? parts?.groups?.['name'];
  if (host === undefined) {
    throw new StaghornError(
      'invalid-input',
      `ProxyJump for host ${alias}: "${hop}" is not [user@]host[:port]`,
      {
        context: { host: alias },
      },
    );
  }
  const port = parts?.groups?.['port'];
  return {
    host,
    configFile,
    user: parts?.groups?.['user'],
    port: port === undefined ? undefined : Number(port),
  };
}

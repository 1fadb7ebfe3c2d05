import type { AddressInfo } from 'node:net';
import type { Command } from 'commander';
import { pino } from 'pino';

import { buildApp } from '../../api/app.ts';
import { messageOf, StaghornError } from '../../errors/index.ts';
import { defaultListen, defaultStateDir, readTokenFile } from '../connection.ts';
import { isLoopback, localUrl, parseListen, type ListenAddress } from '../listen-address.ts';
import type { Parts } from '../parts.ts';
import { announceUrl, makeStateDir, ownToken } from '../server-files.ts';
import { LeftBehind } from '../session.ts';
import type { Shell } from '../shell.ts';
import type { Terminal } from '../terminal.ts';

/** timeout(1) and some shells signal a process and its group: that is one wish to stop, not two. */
const SAME_SIGNAL_MS = 200;

interface ServeOptions {
  readonly listen: string;
  readonly stateDir: string;
  readonly broker?: string;
  readonly tokenFile?: string;
  /** False by --no-token. */
  readonly token: boolean;
}

export function addServeCommand(program: Command, { terminal, parts }: Shell): void {
  program
    .command('serve')
    .description('run the controller with its REST API, until SIGTERM or Ctrl-C')
    .option('--listen <host:port>', 'where to listen', defaultListen)
    .option('--token-file <file>', 'bearer token that requests must carry (else made in the state directory)')
    .option('--no-token', 'let in whoever can connect')
    .option('--state-dir <dir>', 'catalog and token', terminal.env['STAGHORN_STATE_DIR'] ?? defaultStateDir)
    .option(
      '--broker <file>',
      'how to get to the message broker, for experiments with transport: amqp (STAGHORN_BROKER_FILE)',
      terminal.env['STAGHORN_BROKER_FILE'],
    )
    .action(async (options: ServeOptions) => {
      if (!options.token && options.tokenFile !== undefined) {
        throw new StaghornError('invalid-input', '--token-file and --no-token contradict each other');
      }
      const stopped = stopSignals(terminal);
      try {
        await serve(terminal, parts, { options, stopped });
      } finally {
        stopped.dispose();
      }
    });
}

interface StopSignals {
  readonly first: Promise<void>;
  /** Rejects: whatever is still going on is left. */
  readonly second: Promise<never>;
  dispose(): void;
}

function stopSignals(terminal: Terminal): StopSignals {
  let firstAtMs: number | null = null;
  let onFirst: () => void = () => undefined;
  let onSecond: (error: Error) => void = () => undefined;
  const stopListening = terminal.onSignal(['SIGINT', 'SIGTERM'], () => {
    firstAtMs ??= performance.now();
    onFirst();
    if (performance.now() - firstAtMs > SAME_SIGNAL_MS) onSecond(new LeftBehind('stopped at once'));
  });
  const first = new Promise<void>((resolve) => {
    onFirst = resolve;
  });
  const second = new Promise<never>((_resolve, reject) => {
    onSecond = reject;
  });
  // It may come when nobody waits for it any more.
  second.catch(() => undefined);
  return { first, second, dispose: stopListening };
}

async function serve(
  terminal: Terminal,
  parts: Parts,
  { options, stopped }: { options: ServeOptions; stopped: StopSignals },
): Promise<void> {
  const { stateDir } = options;
  const address = parseListen(options.listen);
  await makeStateDir(stateDir);
  const token = options.token ? await tokenOf(options) : null;
  const logger = pino({ level: terminal.env['STAGHORN_LOG'] ?? 'info' }, terminal.stderr);
  const controller = await parts.createController({ stateDir, logger, brokerFile: options.broker });
  const app = buildApp({ service: controller.service, token, logger });
  const close = async () => {
    await app.close();
    await controller.close();
  };
  try {
    const bound = await listen(app, address);
    if (token === null && !isLoopback(bound))
      logger.warn('whoever can connect may use this server: no token');
    const unannounce = await announceUrl(stateDir, localUrl(bound));
    logger.info({ url: localUrl(bound), stateDir }, 'Staghorn serves');
    await stopped.first;
    logger.info('stopping; a second signal stops at once');
    await unannounce();
  } finally {
    await Promise.race([close(), stopped.second]);
  }
}

async function tokenOf({ stateDir, tokenFile }: ServeOptions): Promise<string> {
  return tokenFile === undefined ? ownToken(stateDir) : readTokenFile(tokenFile);
}

async function listen(app: ReturnType<typeof buildApp>, { host, port }: ListenAddress): Promise<AddressInfo> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new StaghornError('conflict', `cannot listen at ${host}:${port}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return app.server.address() as AddressInfo;
}

import { spawn } from 'node:child_process';
import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { StaghornError } from '../errors/index.ts';
import { assetPath } from './asset.ts';
import { run, type RunOptions } from './command.ts';
import { GUEST_CACHE } from './guest-image.ts';
import { HOST_RUN, PRIVATE_DIRECTORIES, labPaths, outside } from './paths.ts';
import type { HostPlan } from './plan.ts';
import { identify, isAlive, until, type ProcessId } from './processes.ts';

const START_DEADLINE_MS = 30_000;
const initFile = z.strictObject({ pid: z.int(), startTicks: z.string(), ownTime: z.boolean() });

function hostDirectory(lab: string, host: string): string {
  return join(labPaths(lab).root, 'hosts', host);
}

/** The host's PID 1, as the machine counts processes; nothing if the host does not run. */
export async function hostInit(lab: string, host: string): Promise<z.infer<typeof initFile> | undefined> {
  const text = await readFile(join(hostDirectory(lab, host), 'init.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const init = initFile.parse(JSON.parse(text));
  return (await isAlive(init)) ? init : undefined;
}

/**
 * Runs a command inside a host.
 * @throws CommandError; StaghornError 'host-unreachable' if the host does not run
 */
export async function runInHost(
  { lab, host }: { lab: string; host: string },
  argv: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const init = await hostInit(lab, host);
  if (init === undefined)
    throw new StaghornError('host-unreachable', `host "${host}" of lab "${lab}" does not run`, {
      context: { host },
    });
  const namespaces = ['--mount', '--uts', '--net', '--pid', ...(init.ownTime ? ['--time'] : [])];
  return run(['nsenter', '--target', String(init.pid), ...namespaces, '--', ...argv], options);
}

/** `unshare --fork` has one child: the host's PID 1. */
async function childOf(parent: ProcessId): Promise<ProcessId | undefined> {
  const { pid } = parent;
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  const child = Number(children.trim().split(' ')[0]);
  return child > 0 ? identify(child) : undefined;
}

function hostCommand(lab: string, host: HostPlan): string[] {
  const offset = String(host.monotonicOffsetSeconds);
  const time =
    host.monotonicOffsetSeconds === 0 ? [] : ['--time', '--monotonic', offset, '--boottime', offset];
  const unshare = ['unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc', ...time];
  const script = [
    'sh',
    assetPath('host/start-host.sh'),
    hostDirectory(lab, host.name),
    host.name,
    GUEST_CACHE,
  ];
  const enter = ['nsenter', `--net=/run/netns/${host.namespace}`];
  return [...enter, ...unshare, '--', 'tini', '--', ...script, ...PRIVATE_DIRECTORIES];
}

/**
 * Starts a host: its namespaces, tini as its PID 1, Open vSwitch and sshd. Whatever runs in it dies with PID 1.
 * @throws StaghornError 'host-unfit' with the end of the host's log; 'cancelled'
 */
export async function startHost(lab: string, host: HostPlan, signal: AbortSignal): Promise<void> {
  const directory = hostDirectory(lab, host.name);
  await mkdir(directory, { recursive: true });
  const logPath = join(directory, 'host.log');
  const log = await open(logPath, 'a');
  const [file, ...args] = hostCommand(lab, host) as [string, ...string[]];
  const child = spawn(file, args, { detached: true, stdio: ['ignore', log.fd, log.fd], cwd: '/' });
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, by) => reject(new Error(`it ended with ${code ?? by}`)));
  });
  try {
    await Promise.race([failed, becomeReady(lab, host, { pid: child.pid ?? 0, signal })]);
  } catch (error) {
    if (signal.aborted) throw new StaghornError('cancelled', 'starting a host was cancelled');
    const text = (await readFile(logPath, 'utf8').catch(() => '')).trim().split('\n').slice(-5).join('\n');
    const context = { host: host.name };
    throw new StaghornError('host-unfit', `host "${host.name}" did not start: ${text}`, {
      cause: error,
      context,
    });
  } finally {
    // The host outlives this process; nobody reads its exit status.
    failed.catch(() => undefined);
    child.unref();
    await log.close();
  }
}

async function becomeReady(
  lab: string,
  host: HostPlan,
  { pid, signal }: { pid: number; signal: AbortSignal },
): Promise<void> {
  let init: ProcessId | undefined;
  const started = outside(lab, host.name, `${HOST_RUN}/started`);
  const complete = await until(
    async () => {
      init ??= await childOf({ pid, startTicks: '' });
      return init !== undefined && (await stat(started).catch(() => undefined)) !== undefined;
    },
    { timeoutMs: START_DEADLINE_MS, signal },
  );
  if (!complete || init === undefined) throw new Error(`it was not up after ${START_DEADLINE_MS} ms`);
  const ownTime = host.monotonicOffsetSeconds !== 0;
  await writeFile(join(hostDirectory(lab, host.name), 'init.json'), JSON.stringify({ ...init, ownTime }));
}

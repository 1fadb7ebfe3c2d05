import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UnixctlError } from './errors.ts';

/** Where Open vSwitch keeps its sockets: OVS_RUNDIR if it is set, as for all of its own commands (ovs-appctl(8)). */
export function runDirectory(): string {
  return process.env['OVS_RUNDIR'] ?? '/var/run/openvswitch';
}

/**
 * The process of a daemon, out of DIRECTORY/DAEMON.pid.
 * @throws UnixctlError 'connect-failed'
 */
export async function daemonPid(daemon = 'ovs-vswitchd', directory = runDirectory()): Promise<number> {
  const pidFile = join(directory, `${daemon}.pid`);
  let text: string;
  try {
    text = await readFile(pidFile, 'utf8');
  } catch (cause) {
    throw new UnixctlError('connect-failed', `${daemon} does not run: ${pidFile} cannot be read`, { cause });
  }
  const pid = /^(\d+)\n?$/.exec(text)?.[1];
  if (pid === undefined) throw new UnixctlError('connect-failed', `${pidFile} holds no process id`);
  return Number(pid);
}

/**
 * Where a daemon's control socket is: DIRECTORY/DAEMON.PID.ctl (ovs-appctl(8), option --target).
 * @throws UnixctlError 'connect-failed'
 */
export async function controlSocketPath(
  daemon = 'ovs-vswitchd',
  directory = runDirectory(),
): Promise<string> {
  return join(directory, `${daemon}.${await daemonPid(daemon, directory)}.ctl`);
}

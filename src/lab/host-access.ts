import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from './command.ts';
import { HOST_RUN, labPaths, outside } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';

/** A host's sshd: keys only, its own host key, nothing of the machine's own configuration. */
function sshdConfig(address: string): string {
  return `# The sshd of a host of a Staghorn lab.
Port 22
ListenAddress ${address}
HostKey ${HOST_RUN}/ssh/host_key
AuthorizedKeysFile ${HOST_RUN}/ssh/authorized_keys
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
`;
}

function clientConfig(plan: LabPlan): string {
  const { clientKey, knownHosts } = labPaths(plan.name);
  const entries = plan.hosts.map(
    ({ name, managementAddress }) => `Host ${name}
  HostName ${managementAddress.split('/', 1)[0]}
  User root
  IdentityFile ${clientKey}
  IdentitiesOnly yes
  UserKnownHostsFile ${knownHosts}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  PasswordAuthentication no
`,
  );
  return `# ssh -F ${labPaths(plan.name).sshConfig} HOST\n${entries.join('\n')}`;
}

async function makeKey(path: string, comment: string, signal: AbortSignal): Promise<string> {
  await run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', comment, '-f', path], { signal });
  const [type, key] = (await readFile(`${path}.pub`, 'utf8')).split(' ');
  return `${type} ${key}`;
}

async function writeHostAccess(
  plan: LabPlan,
  host: HostPlan,
  clientKey: string,
  signal: AbortSignal,
): Promise<string> {
  const directory = outside(plan.name, host.name, `${HOST_RUN}/ssh`);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeFile(join(directory, 'sshd_config'), sshdConfig(host.managementAddress.split('/', 1)[0]!));
  await writeFile(join(directory, 'authorized_keys'), `${clientKey} staghorn-lab\n`, { mode: 0o600 });
  // sshd's place for privilege separation, which only an installed service would make.
  await mkdir(outside(plan.name, host.name, '/run/sshd'), { mode: 0o755 });
  await chmod(dirname(directory), 0o755);
  const hostKey = await makeKey(join(directory, 'host_key'), host.name, signal);
  return `${host.name},${host.managementAddress.split('/', 1)[0]} ${hostKey}\n`;
}

/** Keys and configurations of both sides, made before any sshd starts: host keys are known, never learned. */
export async function writeAccess(plan: LabPlan, signal: AbortSignal): Promise<void> {
  const paths = labPaths(plan.name);
  const clientKey = await makeKey(paths.clientKey, `staghorn-lab-${plan.name}`, signal);
  const known = await Promise.all(plan.hosts.map((host) => writeHostAccess(plan, host, clientKey, signal)));
  await writeFile(paths.knownHosts, known.join(''));
  await writeFile(paths.sshConfig, clientConfig(plan));
  const hosts = plan.hosts.map(({ name }) => ({ name, ssh: name, sshConfig: paths.sshConfig }));
  await writeFile(paths.experiment, `${JSON.stringify({ name: plan.name, hosts }, null, 2)}\n`);
}

import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export type BrokerUser = 'controller' | 'agent';

export const brokerVhost = 'staghorn';

/** As docs/operations.md tells a site to set them. */
export const brokerPermissions: Readonly<
  Record<BrokerUser, { readonly configure: string; readonly write: string; readonly read: string }>
> = {
  controller: {
    configure: '^staghorn\\.(agents|controllers|controllers\\..*)$',
    write: '^staghorn\\.(agents|controllers\\..*)$',
    read: '^staghorn\\.(controllers|controllers\\..*)$',
  },
  agent: {
    configure: '^staghorn\\.(agents|controllers|agents\\..*)$',
    write: '^staghorn\\.(controllers|agents\\..*)$',
    read: '^staghorn\\.(agents|agents\\..*)$',
  },
};

/** Everything that a broker of one's own needs in a directory: certificates, users, configuration. */
export function writeBrokerFiles(
  directory: string,
  address: string,
  passwords: Readonly<Record<BrokerUser, string>>,
): void {
  for (const name of ['mnesia', 'log', 'home']) mkdirSync(join(directory, name), { recursive: true });
  makeCertificates(directory, address);
  const users = Object.entries(passwords);
  writeFileSync(
    join(directory, 'definitions.json'),
    JSON.stringify({
      vhosts: [{ name: brokerVhost }],
      users: users.map(([name, password]) => ({
        name,
        password_hash: hashOf(password),
        hashing_algorithm: 'rabbit_password_hashing_sha256',
        tags: '',
      })),
      permissions: users.map(([user]) => ({
        user,
        vhost: brokerVhost,
        ...brokerPermissions[user as BrokerUser],
      })),
    }),
  );
  writeFileSync(join(directory, 'plugins'), '[].\n');
  writeFileSync(
    join(directory, 'rabbitmq.conf'),
    `listeners.tcp.1 = 0.0.0.0:5672
listeners.ssl.1 = 0.0.0.0:5671
ssl_options.cacertfile = ${directory}/ca.pem
ssl_options.certfile = ${directory}/broker.pem
ssl_options.keyfile = ${directory}/broker.key
load_definitions = ${directory}/definitions.json
log.console = true
log.file = false
`,
  );
}

/** A broker file as `--broker` takes it. @returns its path */
export function writeBrokerFile(
  path: string,
  { user, password, url }: { user: string; password: string; url: string },
): string {
  const lines = [`url: ${url}`, `user: ${user}`, `password: ${JSON.stringify(password)}`];
  if (url.startsWith('amqps:')) lines.push('ca: ca.pem');
  writeFileSync(path, `${lines.join('\n')}\n`);
  chmodSync(path, 0o600);
  return path;
}

/** RabbitMQ, "Credentials and passwords": a salt of four bytes before the SHA-256 of salt and password. */
function hashOf(password: string): string {
  const salt = randomBytes(4);
  const digest = createHash('sha256').update(salt).update(password).digest();
  return Buffer.concat([salt, digest]).toString('base64');
}

function makeCertificates(directory: string, address: string): void {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '2',
    '-subj',
    '/CN=test CA',
  );
  openssl('req', ...key, '-keyout', 'broker.key', '-out', 'broker.csr', '-subj', '/CN=broker');
  writeFileSync(join(directory, 'broker.ext'), `subjectAltName=IP:${address}\n`);
  const issue = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2'];
  openssl('x509', '-req', '-in', 'broker.csr', ...issue, '-extfile', 'broker.ext', '-out', 'broker.pem');
}

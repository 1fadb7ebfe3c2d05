import { open, readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { StaghornError, messageOf } from '../errors/index.ts';

const brokerFile = z.strictObject({
  url: z
    .url({ protocol: /^amqps?$/, hostname: /./ })
    .refine((url) => new URL(url).username === '' && new URL(url).password === '', {
      message: 'credentials do not belong into the URL: give user and password',
    }),
  user: z.string().min(1),
  password: z.string(),
  /** Files in PEM form, relative to the broker file. */
  ca: z.string().optional(),
  certificate: z.string().optional(),
  key: z.string().optional(),
});

/** How to get to the site's message broker. */
export interface BrokerSettings {
  readonly host: string;
  readonly port: number;
  readonly vhost: string;
  readonly tls: boolean;
  readonly user: string;
  readonly password: string;
  /** In PEM form; trusted instead of the system's authorities. */
  readonly ca?: Buffer | undefined;
  readonly certificate?: Buffer | undefined;
  readonly key?: Buffer | undefined;
}

/**
 * Reads a broker file. It holds a password, so nobody but its owner may have any access to it.
 * @throws StaghornError 'invalid-input' with all problems at once
 */
export async function readBrokerFile(path: string): Promise<BrokerSettings> {
  const parsed = brokerFile.safeParse(parseYaml(path, await readPrivately(path)));
  if (!parsed.success) {
    const problems = parsed.error.issues.map(
      (issue) => `${z.core.toDotPath(issue.path) || '(root)'}: ${issue.message}`,
    );
    throw new StaghornError('invalid-input', `the broker file ${path}: ${problems.join('; ')}`, {
      context: { problems },
    });
  }
  const { url, user, password, ca, certificate, key } = parsed.data;
  const { protocol, hostname, port, pathname } = new URL(url);
  const tls = protocol === 'amqps:';
  const pem = (name: string | undefined) => readPem(path, name);
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || (tls ? 5671 : 5672)),
    // Of the URI, the vhost is what stands behind the slash; without a slash it is "/" (RabbitMQ, URI specification).
    vhost: pathname.length > 1 ? decodeURIComponent(pathname.slice(1)) : '/',
    tls,
    user,
    password,
    ca: await pem(ca),
    certificate: await pem(certificate),
    key: await pem(key),
  };
}

/** What does not parse is not quoted, and no cause is kept: the parser's own error quotes lines, a password in them. */
function parseYaml(path: string, text: string): unknown {
  const document = parseDocument(text);
  const [problem] = document.errors;
  if (problem === undefined) return document.toJS();
  const line = problem.linePos?.[0].line ?? 1;
  throw new StaghornError('invalid-input', `the broker file ${path}, line ${line}: ${problem.code}`);
}

async function readPrivately(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { mode } = await file.stat();
      if ((mode & 0o077) === 0) return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new StaghornError('invalid-input', `the broker file cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  throw new StaghornError(
    'invalid-input',
    `the broker file ${path} holds a password and others may use it; chmod 600 it`,
  );
}

async function readPem(beside: string, name: string | undefined): Promise<Buffer | undefined> {
  if (name === undefined) return undefined;
  try {
    return await readFile(resolve(dirname(beside), name));
  } catch (error) {
    throw new StaghornError('invalid-input', `the broker file ${beside}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

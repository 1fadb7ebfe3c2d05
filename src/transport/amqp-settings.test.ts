import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { readBrokerFile } from './amqp-settings.ts';

describe('a broker file', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'staghorn-broker-file-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  async function file(text: string, mode = 0o600): Promise<string> {
    const path = join(directory, 'broker.yaml');
    await writeFile(path, text);
    await chmod(path, mode);
    return path;
  }

  it('gives host, port, vhost and certificates beside it', async () => {
    await writeFile(join(directory, 'ca.pem'), 'an authority');
    const path = await file('url: amqps://mq.site/a%2Fb\nuser: u\npassword: "p:w@d"\nca: ca.pem\n');
    expect(await readBrokerFile(path)).toMatchObject({
      host: 'mq.site',
      port: 5671,
      vhost: 'a/b',
      tls: true,
      user: 'u',
      password: 'p:w@d',
      ca: Buffer.from('an authority'),
    });
  });

  it('may leave out port and vhost', async () => {
    const path = await file('url: amqp://[::1]\nuser: u\npassword: p\n');
    expect(await readBrokerFile(path)).toMatchObject({ host: '::1', port: 5672, vhost: '/', tls: false });
  });

  it('is refused if others may read it', async () => {
    const path = await file('url: amqp://mq\nuser: u\npassword: p\n', 0o640);
    await expect(readBrokerFile(path)).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringContaining('chmod 600') as string,
    });
  });

  it.each([
    ['a password in the URL', 'url: amqp://u:secret@mq\nuser: u\npassword: p\n'],
    ['another protocol', 'url: http://mq\nuser: u\npassword: p\n'],
    ['no user', 'url: amqp://mq\npassword: p\n'],
    ['a key that nobody knows', 'url: amqp://mq\nuser: u\npassword: p\nvirtualHost: x\n'],
    ['no YAML', 'url: [\npassword: secret\n'],
    ['a certificate that is not there', 'url: amqps://mq\nuser: u\npassword: p\nca: none.pem\n'],
  ])('is refused with %s, and quotes no password', async (_what, text) => {
    const error: unknown = await readBrokerFile(await file(text)).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'invalid-input' });
    expect(String(error)).not.toContain('secret');
  });
});

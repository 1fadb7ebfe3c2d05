import { appendFileSync } from 'node:fs';
import { once } from 'node:events';
import { StaghornError } from '../../src/errors/index.ts';
import { serveRpc } from '../../src/transport/rpc.ts';
import { fixtureContract } from './agent-fixture-contract.ts';

// A small agent: what the tests deploy, bundled into one file.
const [behaviour = 'serve', goodbyeFile] = process.argv.slice(2);
if (behaviour === 'exit') {
  process.stderr.write(`${'x'.repeat(20_000)}\nthe addon does not load\n`);
  process.exitCode = 3;
} else if (behaviour === 'chatter') {
  process.stdout.write('Hello, this is no message\r\n\r\n');
  process.stdin.resume();
} else {
  const server = serveRpc(
    fixtureContract,
    {
      describe: () => ({
        uid: process.getuid?.() ?? -1,
        pid: process.pid,
        node: process.execPath,
        script: process.argv[1] ?? '',
        variable: process.env['FIXTURE_VARIABLE'] ?? null,
      }),
      wait: async (_params, { signal }) => {
        await once(signal, 'abort');
        await server.notify('aborted', { why: (signal.reason as StaghornError).code });
        return null;
      },
      repeat: ({ text, times }) => text.repeat(times),
      fail: () => {
        throw new StaghornError('vm-unfit', 'VM a has no QMP socket', { context: { vm: 'a' } });
      },
    },
    { readable: process.stdin, writable: process.stdout },
  );
  void server.closed.then(() => {
    if (goodbyeFile !== undefined) appendFileSync(goodbyeFile, 'ended in order\n');
  });
}

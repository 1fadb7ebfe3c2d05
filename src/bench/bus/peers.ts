import { createServer } from 'node:net';

import { readBrokerFile, serveAtBroker, serveRpc, type RpcConnection } from '../../transport/rpc.ts';
import { busContract } from './contract.ts';

/**
 * The agents' side of the bench, many in one process: `peers amqp BROKERFILE FIRST COUNT` at a broker, `peers unix
 * SOCKET` behind a socket that sshd forwards to. Prints a line when all are there; ends with its standard input.
 */
async function serve(connection: RpcConnection): Promise<void> {
  const stamp = () => ({ arrivedAtNs: process.hrtime.bigint() });
  await serveRpc(busContract, { stamp }, connection).closed;
}

async function atBroker(file: string, first: number, count: number): Promise<void> {
  const settings = await readBrokerFile(file);
  let connected = 0;
  const onConnected = () => {
    connected += 1;
    if (connected === count) process.stdout.write('ready\n');
  };
  const names = Array.from({ length: count }, (_, i) => `peer-${first + i}`);
  await Promise.all(
    names.map((name) =>
      serveAtBroker({ settings, name, serve, onConnected, signal: new AbortController().signal }),
    ),
  );
}

function atSocket(path: string): void {
  createServer((socket) => {
    socket.on('error', () => undefined);
    void serve({ readable: socket, writable: socket });
  }).listen(path, () => process.stdout.write('ready\n'));
}

const [kind, place = '', first = '0', count = '1'] = process.argv.slice(2);
process.stdin.resume().once('end', () => process.exit(0));
if (kind === 'amqp') await atBroker(place, Number(first), Number(count));
else atSocket(place);

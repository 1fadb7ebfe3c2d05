import { createServer } from 'node:net';

import { agentContract } from '../../protocol/rpc.ts';
import { systemTime } from '../../protocol/time.ts';
import { SimulatedAgent } from '../../simulation/agent.ts';
import { SimulatedHost, type HostObserver } from '../../simulation/host.ts';
import { Random } from '../../simulation/random.ts';
import { serveRpc, type RpcServer } from '../../transport/rpc.ts';

/** The process of all simulated agents: `agents-main.js SOCKET HOSTS VMS`. Each connection is the next host's. */
const [socket = '', hosts = '', vmsPerHost = ''] = process.argv.slice(2);

const nobody: HostObserver = {
  ...{ armed() {}, cut() {}, stopped() {}, drained() {}, saved() {}, resumed() {}, gaveUp() {} },
};
const random = new Random(1);
const all = Array.from(
  { length: Number(hosts) },
  (_, index) => new SimulatedHost(index, Number(vmsPerHost), systemTime),
);

let next = 0;
const server = createServer((connection) => {
  const host = all[next++];
  if (host === undefined) {
    connection.destroy();
    return;
  }
  const parts = { host, time: systemTime, random, observer: nobody };
  const agent = new SimulatedAgent({
    ...parts,
    barrierLost: (barrier, { message, code }) => {
      const lost = { barrier, reason: message, code, port: null };
      rpc.notify('barrierLost', lost).catch(() => undefined);
    },
  });
  const rpc: RpcServer<typeof agentContract> = serveRpc(agentContract, agent.handlers, {
    readable: connection,
    writable: connection,
  });
  connection.on('error', () => undefined);
});
server.listen(socket, () => process.stdout.write('ready\n'));
// The end of whoever started it is the end of it.
process.stdin.on('end', () => process.exit(0)).resume();

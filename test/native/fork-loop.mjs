// Forks a process's memory again and again, until it is killed: PID ADDRESS LENGTH.
import { createRequire } from 'node:module';

const addon = createRequire(import.meta.url)('../../build/Release/staghorn.node');
const [pid, address, length] = process.argv.slice(2);
const regions = [{ address: BigInt(address), length: Number(length) }];
process.stdout.write('ready\n');
for (;;) {
  const number = await addon.startPrepareFork({ pid: Number(pid), regions, leftOut: [], timeoutMs: 5000 })
    .promise;
  await addon.startFork(number).promise;
  await addon.startRelease(number).promise;
}

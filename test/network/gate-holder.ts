// A process that makes a gate in a tap, holds, replays when told to, and is there to be killed. Its descriptor 3 is
// a copy of the tap's, as an agent has one of QEMU's. Arguments: ifindex of the tap.
import { Gate } from '../../src/native/gate.ts';

const ifindex = Number(process.argv[2]);
const gate = Gate.create({ slots: 1, ringBytes: 1 << 20, hold: true });
gate.attachTap({ fd: 3, slot: 0 });
const { stateMapId, ringMapId, nonce } = gate.identity;
process.stdout.write(`${JSON.stringify({ stateMapId, ringMapId, nonce: String(nonce) })}\n`);

process.stdin.on('data', (line) => {
  const notBeforeNs = process.hrtime.bigint();
  void gate.replay({
    ports: [{ slot: 0, ifindex, notBeforeNs, shiftNs: notBeforeNs - BigInt(String(line).trim()) }],
  });
});

// A process that reads a tap's ring into a journal, gives back what it read when told to, and is there to be killed.
// Its descriptor 3 is a copy of the tap's. Arguments: ifindex of the tap, path of the journal.
import { Gate } from '../../src/native/gate.ts';
import { LeftoverJournal } from '../../src/native/leftovers.ts';

const [ifindex, path] = [Number(process.argv[2]), process.argv[3]!];
const gate = Gate.create({ slots: 1, ringBytes: 1 << 20, hold: true });
gate.attachTap({ fd: 3, slot: 0 });
const { stateMapId, ringMapId, nonce } = gate.identity;
const journal = LeftoverJournal.create({ path, bytes: 8 << 20, nonce });
journal.readRings([{ fd: 3, headerBytes: 0, port: 0 }], 1n);
process.stdout.write(`${JSON.stringify({ stateMapId, ringMapId, nonce: String(nonce) })}\n`);

process.stdin.on('data', () => {
  const ports = [{ port: 0, ifindex }];
  void journal.giveBack({ state: gate.stateMemory, ports, giveUpAfterMs: 60_000 });
});

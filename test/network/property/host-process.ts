// Plays the agent of one host, inside its network namespace; is told over IPC (protocol.ts).
import { HeldVms } from './held-vms.ts';
import type { HostCall, HostCalls, HostReply, HostRequest } from './protocol.ts';

let held: HeldVms | undefined;

function armed(): HeldVms {
  if (held === undefined) throw new Error('this host is not armed');
  return held;
}

function disarm(): void {
  held?.close();
  held = undefined;
}

const calls: {
  [Call in HostCall]: (params: HostCalls[Call]['params']) => Promise<HostCalls[Call]['result']>;
} = {
  arm: async ({ vms, directory }) => {
    held = await HeldVms.arm(vms, directory);
    return null;
  },
  cut: async ({ atNs }) => armed().cut(atNs),
  drain: async () => armed().drain(),
  save: async ({ directory }) => armed().save(directory),
  resume: async ({ instants }) => {
    await armed().resume(instants);
    return null;
  },
  settle: async () => {
    const report = await armed().settle();
    held = undefined;
    return report;
  },
  abandon: async () => {
    disarm();
    return null;
  },
};

async function answer({ number, call, params }: HostRequest): Promise<HostReply> {
  try {
    const carryOut = calls[call] as (given: unknown) => Promise<unknown>;
    return { number, result: await carryOut(params) };
  } catch (error) {
    return { number, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}

process.on('message', (request: HostRequest) => {
  void answer(request).then((reply) => process.send?.(reply));
});
process.on('disconnect', () => process.exit(0));

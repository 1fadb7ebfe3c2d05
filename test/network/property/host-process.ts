// Plays the agent of one host, inside its network namespace; is told over IPC (protocol.ts).
import { closeSync } from 'node:fs';
import { plugTap } from '../../../src/native/plug.ts';
import { openTap } from '../../../src/native/tap.ts';
import { HeldVms } from './held-vms.ts';
import type { HostCall, HostCalls, HostReply, HostRequest } from './protocol.ts';

type Calls = {
  [Call in HostCall]: (params: HostCalls[Call]['params']) => Promise<HostCalls[Call]['result']>;
};

let held: HeldVms | undefined;

function armed(): HeldVms {
  if (held === undefined) throw new Error('this host is not armed');
  return held;
}

function plug(device: string): void {
  const fd = openTap({ name: device });
  try {
    plugTap(fd);
  } finally {
    closeSync(fd);
  }
}

const calls: Calls = {
  arm: async (params) => {
    held = await HeldVms.arm(params);
    return { ports: held.armedPorts };
  },
  probe: async ({ targets }) => armed().probe(targets),
  listen: async ({ sources }) => ({ missing: await armed().listen(sources) }),
  cut: async ({ atNs }) => ({ stops: await armed().cut(atNs) }),
  drain: async () => {
    await armed().drain();
    return null;
  },
  save: async ({ directory }) => ({ frames: await armed().save(directory) }),
  resume: async ({ instants }) => {
    await armed().resume(instants);
    return null;
  },
  settle: async () => {
    await armed().settle();
    held = undefined;
    return null;
  },
  abandon: async () => {
    held?.close();
    held = undefined;
    return null;
  },
  plug: async ({ devices }) => {
    for (const device of devices) plug(device);
    return null;
  },
  flush: async ({ directory }) => {
    await armed().flush(directory);
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

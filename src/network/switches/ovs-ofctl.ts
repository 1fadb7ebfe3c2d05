import { execFile } from 'node:child_process';

import { StaghornError } from '../../errors/index.ts';

const timeoutMs = 20_000;
const maxOutputBytes = 64 * 1024 * 1024;
/** A bridge speaks what its `protocols` allow; the newest that both know is taken (ovs-ofctl(8), --protocols). */
const anyVersion = ['10', '11', '12', '13', '14', '15'].map((version) => `OpenFlow${version}`).join(',');

export interface OfctlCall {
  readonly args: readonly string[];
  /** What "-" in place of a file reads. */
  readonly input?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Runs ovs-ofctl, which speaks OpenFlow with a bridge. @throws StaghornError 'network-unfit' with its own words */
export function ofctl({ args, input = '', signal }: OfctlCall): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { signal, timeout: timeoutMs, killSignal: 'SIGKILL' as const, maxBuffer: maxOutputBytes };
    const child = execFile('ovs-ofctl', ['-O', anyVersion, ...args], options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else if (signal?.aborted === true) reject(new StaghornError('cancelled', 'ovs-ofctl was cancelled'));
      else {
        const words = stderr.trim().split('\n').at(-1) ?? '';
        const text = `ovs-ofctl ${args.slice(0, 2).join(' ')}: ${words === '' ? error.message : words}`;
        reject(new StaghornError('network-unfit', text, { cause: error }));
      }
    });
    // It may end before it has read everything: then its exit tells.
    child.stdin?.on('error', () => undefined).end(input);
  });
}

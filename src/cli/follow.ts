import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../errors/index.ts';
import type { Operation, Progress } from '../protocol/resources.ts';
import type { ApiClient } from './client.ts';

const RETRY_DELAY_MS = 1000;
const MAX_RETRIES = 5;

export interface FollowOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}

/** Waits for an operation to end; takes up a stream that broke where it broke. Throws `server-unreachable`. */
export async function followOperation(
  client: ApiClient,
  id: string,
  options: FollowOptions,
): Promise<Operation> {
  const { signal, onProgress } = options;
  let afterId = 0;
  for (let failures = 0; ;) {
    try {
      for await (const event of client.events(id, { afterId, signal })) {
        afterId = event.id;
        failures = 0;
        if (event.progress !== undefined) onProgress(event.progress);
        if (event.operation !== undefined && event.type === 'ended') return event.operation;
      }
    } catch (error) {
      if (!(error instanceof StaghornError) || error.code !== 'server-unreachable' || failures >= MAX_RETRIES)
        throw error;
    }
    failures += 1;
    if (failures > MAX_RETRIES)
      throw new StaghornError('server-unreachable', `the events of ${id} end before it does`);
    await delay(RETRY_DELAY_MS, undefined, { signal });
  }
}

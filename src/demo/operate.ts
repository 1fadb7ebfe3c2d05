import type { ApiClient } from '../cli/client.ts';
import { followOperation } from '../cli/follow.ts';
import { StaghornError } from '../errors/index.ts';
import { operation as operationSchema } from '../protocol/resources.ts';

/** What takes longer is followed. */
const waitSeconds = 10;

/** Starts long work and waits for its result. @throws StaghornError as the work did */
export async function operate<T>(
  client: ApiClient,
  path: string,
  body: unknown,
  schema: { parse(value: unknown): T },
  signal: AbortSignal,
): Promise<T> {
  const headers = { prefer: `wait=${waitSeconds}` };
  const begun = await client.json('POST', path, operationSchema, { body, headers, signal });
  const ended =
    begun.state === 'running'
      ? await followOperation(client, begun.id, { signal, onProgress: () => undefined })
      : begun;
  if (ended.state === 'succeeded') return schema.parse(ended.result);
  throw new StaghornError(
    ended.error?.code ?? 'internal',
    `${ended.kind} ${ended.state}: ${ended.error?.detail ?? ''}`,
  );
}

import type { FastifyInstance } from 'fastify';

import type { Operation } from '../protocol/resources.ts';
import { cutShort } from './cut-short.ts';
import type { RouteContext } from './routes.ts';

/**
 * `Prefer: wait=SECONDS` (RFC 7240, section 4.3): an answer that would say that an operation has begun comes when it
 * has ended, as 200 with the ended operation, unless that takes longer.
 */
export function waitForOperations(app: FastifyInstance, { service, closing, limits }: RouteContext): void {
  app.addHook('preSerialization', async (request, reply, payload) => {
    const wished = secondsToWait(request.headers.prefer);
    if (reply.statusCode !== 202 || wished === null) return payload;
    const seconds = Math.min(wished, limits.waitSeconds);
    // No route answers 202 with anything else.
    const { id } = payload as Operation;
    const signal = AbortSignal.any([cutShort(reply, closing), AbortSignal.timeout(seconds * 1000)]);
    for await (const event of service.operationEvents(id, { signal })) if (event.type === 'ended') break;
    const now = service.getOperation(id);
    void reply.header('preference-applied', `wait=${seconds}`);
    if (now.state !== 'running') void reply.code(200);
    return now;
  });
}

/** Null: the client would rather not. */
export function secondsToWait(prefer: string | readonly string[] | undefined): number | null {
  const found = /(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)/i.exec([prefer ?? []].flat().join(','));
  return found === null ? null : Number(found[1]);
}

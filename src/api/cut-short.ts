import type { FastifyReply } from 'fastify';

/** Aborts when the client goes away before its answer, or when the server closes. */
export function cutShort(reply: FastifyReply, closing: AbortSignal): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => {
    gone.abort();
  });
  return AbortSignal.any([gone.signal, closing]);
}

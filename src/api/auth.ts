import { createHash, timingSafeEqual } from 'node:crypto';
import type { onRequestAsyncHookHandler } from 'fastify';

import { StaghornError } from '../errors/index.ts';

/** Lets a request through that carries `Authorization: Bearer <token>` (RFC 6750); null lets all through. */
export function requireToken(token: string | null): onRequestAsyncHookHandler {
  const expected = token === null ? null : digest(token);
  return async (request, reply) => {
    if (expected === null) return;
    const given = /^bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
    if (given !== undefined && timingSafeEqual(digest(given), expected)) return;
    const wrong =
      given === undefined ? 'no bearer token came with the request' : 'the bearer token is not the right one';
    // RFC 6750, section 3: the error attribute only if a token was given.
    void reply.header('www-authenticate', given === undefined ? 'Bearer' : 'Bearer error="invalid_token"');
    throw new StaghornError(
      'unauthorized',
      `${wrong}; the token is in the server's token file (STAGHORN_TOKEN or --token-file at the CLI)`,
    );
  };
}

/** Of equal length whatever the token's, as timingSafeEqual needs. */
function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

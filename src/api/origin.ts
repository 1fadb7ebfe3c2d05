import { isIP } from 'node:net';
import type { FastifyRequest, onRequestAsyncHookHandler } from 'fastify';

import { StaghornError } from '../errors/index.ts';

/**
 * For a server without a token: a web page must not command it through its reader's browser. Refuses requests
 * that come to a loopback address under another name (DNS rebinding) or from a page of another origin.
 */
export const refuseForeignOrigins: onRequestAsyncHookHandler = async (request) => {
  if (
    isLoopback(request.socket.localAddress) &&
    !isLoopback(request.hostname) &&
    request.hostname !== 'localhost'
  ) {
    throw new StaghornError(
      'origin-refused',
      `This server is reached at a loopback address only, not as "${request.hostname}"`,
    );
  }
  const { origin } = request.headers;
  if (origin !== undefined && hostOf(origin) !== request.host) {
    throw new StaghornError('origin-refused', `A page of ${origin} may not use this server`);
  }
};

function hostOf(origin: string): FastifyRequest['host'] | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

function isLoopback(address: string | undefined): boolean {
  if (address === undefined) return false;
  const bare = address.replace(/^\[|\]$/g, '').replace(/^::ffff:/i, '');
  return bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

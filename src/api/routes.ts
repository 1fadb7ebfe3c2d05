import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { IncomingMessage, ServerResponse } from 'node:http';

import type { StaghornService } from '../controller/service.ts';
import type { ApiLimits } from './limits.ts';

/** A Fastify instance whose handlers are typed by the zod schemas of their routes. */
export type Router = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** What every file of routes is given. */
export interface RouteContext {
  readonly service: StaghornService;
  readonly limits: ApiLimits;
  /** Aborts when the server closes, so that open event streams end. */
  readonly closing: AbortSignal;
}

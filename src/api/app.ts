import Fastify, { LogController, type FastifyBaseLogger, type FastifyInstance } from 'fastify';
import { serializerCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';

import type { StaghornService } from '../controller/service.ts';
import { archiveRoutes } from './archives.ts';
import { requireToken } from './auth.ts';
import { experimentRoutes } from './experiments.ts';
import { forkRoutes } from './forks.ts';
import { healthRoutes } from './health.ts';
import { readJsonBodies } from './json-body.ts';
import { answerUnknownRoutes } from './known-routes.ts';
import { defaultLimits, type ApiLimits } from './limits.ts';
import { metricsRoutes } from './metrics.ts';
import { describeApi, documentRoute } from './openapi.ts';
import { operationRoutes } from './operations.ts';
import { refuseForeignOrigins } from './origin.ts';
import { problemPages } from './problem-pages.ts';
import { errorOfRequest, sendProblem } from './problem.ts';
import { retentionRoutes } from './retention.ts';
import type { RouteContext, Router } from './routes.ts';
import { snapshotRoutes } from './snapshots.ts';
import { validatorCompiler } from './validation.ts';
import { waitForOperations } from './waiting.ts';

export interface AppOptions {
  readonly service: StaghornService;
  /** The bearer token that requests must carry; null: none. */
  readonly token: string | null;
  readonly logger: FastifyBaseLogger;
  readonly limits?: Partial<ApiLimits>;
}

/** The REST API, ready to listen or to be injected into. Closing it ends open event streams. */
export function buildApp({ service, token, logger, limits: given }: AppOptions): FastifyInstance {
  const limits = { ...defaultLimits, ...given };
  const app = createServer(logger, limits);
  const closing = new AbortController();
  app.addHook('preClose', async () => {
    closing.abort();
  });
  app.addHook('onSend', async (_request, reply) => {
    if (closing.signal.aborted) void reply.header('connection', 'close');
  });
  handleErrors(app);
  answerUnknownRoutes(app);
  readJsonBodies(app);
  if (token === null) app.addHook('onRequest', refuseForeignOrigins);
  describeApi(app, { version: service.health().version, secured: token !== null });
  addRoutes(app, { context: { service, limits, closing: closing.signal }, token });
  return app;
}

function createServer(loggerInstance: FastifyBaseLogger, limits: ApiLimits): FastifyInstance {
  const app = Fastify({
    loggerInstance,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: limits.bodyBytes,
    routerOptions: { maxParamLength: limits.parameterLength },
    frameworkErrors: (error, _request, reply) => {
      void sendProblem(reply, errorOfRequest(error));
    },
  });
  app.server.maxConnections = limits.connections;
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.addHook('onResponse', async (request, reply) => {
    const { method, url } = request;
    request.log.debug({ method, url, status: reply.statusCode, ms: reply.elapsedTime }, 'answered');
  });
  return app;
}

function handleErrors(app: FastifyInstance): void {
  app.setErrorHandler((error, request, reply) => {
    const problem = errorOfRequest(error);
    if (problem.code === 'internal') request.log.error({ err: error }, 'a request failed');
    return sendProblem(reply, problem);
  });
}

function addRoutes(
  app: FastifyInstance,
  { context, token }: { context: RouteContext; token: string | null },
): void {
  app.register(async (scope) => {
    const open = scope.withTypeProvider<ZodTypeProvider>();
    healthRoutes(open, context);
    problemPages(open);
    documentRoute(open);
  });
  app.register(async (scope) => {
    scope.addHook('onRequest', requireToken(token));
    waitForOperations(scope, context);
    const secured: Router = scope.withTypeProvider<ZodTypeProvider>();
    experimentRoutes(secured, context);
    snapshotRoutes(secured, context);
    archiveRoutes(secured, context);
    retentionRoutes(secured, context);
    forkRoutes(secured, context);
    operationRoutes(secured, context);
    metricsRoutes(secured, context);
  });
}

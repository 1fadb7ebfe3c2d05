import { Readable } from 'node:stream';
import { z } from 'zod';

import { operation } from '../protocol/resources.ts';
import { cutShort } from './cut-short.ts';
import { eventStream, eventStreamMediaType } from './event-stream.ts';
import { eventsHeaders, operationParams } from './parameters.ts';
import { json, operationStarted, problems, sendOperation } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

const tags = ['operations'];

export function operationRoutes(app: Router, context: RouteContext): void {
  plainRoutes(app, context);
  eventRoutes(app, context);
}

function plainRoutes(app: Router, { service }: RouteContext): void {
  app.get(
    '/v1/operations',
    {
      schema: {
        summary: 'List the operations',
        operationId: 'listOperations',
        tags,
        response: { 200: json('Operations', z.array(operation)), ...problems('unauthorized') },
      },
    },
    async () => service.listOperations(),
  );
  app.get(
    '/v1/operations/:id',
    {
      schema: {
        summary: 'Show an operation',
        operationId: 'getOperation',
        tags,
        params: operationParams,
        response: { 200: json('The operation', operation), ...problems('unauthorized', 'not-found') },
      },
    },
    async (request) => service.getOperation(request.params.id),
  );
  app.delete(
    '/v1/operations/:id',
    {
      schema: {
        summary: 'Cancel an operation',
        description: 'It ends as "cancelled" with every VM running, or as what it had become already.',
        operationId: 'cancelOperation',
        tags,
        params: operationParams,
        response: { ...operationStarted, ...problems('unauthorized', 'not-found') },
      },
    },
    async (request, reply) => sendOperation(reply, service.cancelOperation(request.params.id)),
  );
}

function eventRoutes(app: Router, { service, closing, limits }: RouteContext): void {
  app.get(
    '/v1/operations/:id/events',
    {
      schema: {
        summary: 'Follow an operation',
        description:
          'Server-sent events: past ones first, then new ones until the operation has ended. Each has an id (counting from 1), an event ("progress" or "ended") and an OperationEvent as JSON in data.',
        operationId: 'followOperation',
        tags,
        params: operationParams,
        headers: eventsHeaders,
        response: {
          200: { description: 'The events', content: { [eventStreamMediaType]: { schema: z.string() } } },
          ...problems('unauthorized', 'not-found', 'invalid-input'),
        },
      },
    },
    async (request, reply) => {
      const { id } = service.getOperation(request.params.id);
      const signal = cutShort(reply, closing);
      const afterId = request.headers['last-event-id'];
      const events = service.operationEvents(id, { afterId, signal });
      // A connection kept alive after its stream would hold up the closing of the server.
      void reply.headers({ 'cache-control': 'no-store', 'x-accel-buffering': 'no', connection: 'close' });
      // A stream is sent as it is; the schema's type is that of the whole text.
      const stream: unknown = Readable.from(eventStream(events, { heartbeatMs: limits.heartbeatMs, signal }));
      return reply.type(eventStreamMediaType).send(stream as string);
    },
  );
}

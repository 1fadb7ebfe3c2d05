import { z } from 'zod';

import { pruneInput } from '../protocol/prune.ts';
import { rolling, rollingInput } from '../protocol/rolling.ts';
import { experimentParams } from './parameters.ts';
import { json, operationStarted, problems, sendOperation } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

const tags = ['snapshots'];
const common = ['unauthorized', 'not-found'] as const;
const withBody = ['invalid-input', 'body-too-large', 'unsupported-media-type'] as const;

/** What keeps the number of snapshots in bounds: pruning, and rolling snapshots. */
export function retentionRoutes(app: Router, context: RouteContext): void {
  pruneRoute(app, context);
  rollingReads(app, context);
  rollingChanges(app, context);
}

function pruneRoute(app: Router, { service }: RouteContext): void {
  app.post(
    '/v1/experiments/:name/prune',
    {
      schema: {
        summary: 'Remove snapshots that no rule keeps',
        description: 'The result of the operation says what was removed, and why each other one stays.',
        operationId: 'pruneExperiment',
        tags,
        params: experimentParams,
        body: pruneInput,
        response: { ...operationStarted, ...problems(...common, ...withBody, 'conflict') },
      },
    },
    async (request, reply) =>
      sendOperation(reply, service.pruneExperiment(request.params.name, request.body)),
  );
}

function rollingReads(app: Router, { service }: RouteContext): void {
  app.get(
    '/v1/rolling',
    {
      schema: {
        summary: 'List the rolling snapshots of all experiments',
        operationId: 'listRolling',
        tags,
        response: { 200: json('All of them', z.array(rolling)), ...problems('unauthorized') },
      },
    },
    async () => service.listRolling(),
  );
  app.get(
    '/v1/experiments/:name/rolling',
    {
      schema: {
        summary: 'Show the rolling snapshots of an experiment',
        operationId: 'getRolling',
        tags,
        params: experimentParams,
        response: { 200: json('How they are taken, and how it goes', rolling), ...problems(...common) },
      },
    },
    async (request) => service.getRolling(request.params.name),
  );
}

function rollingChanges(app: Router, { service }: RouteContext): void {
  app.put(
    '/v1/experiments/:name/rolling',
    {
      schema: {
        summary: 'Take snapshots of an experiment again and again',
        description:
          'The first at once; they go on after the server was restarted. A beat at which something else is being done with the experiment is skipped. Only snapshots that were taken so are removed, and none that was given a name or the label "keep".',
        operationId: 'putRolling',
        tags,
        params: experimentParams,
        body: rollingInput,
        response: { 200: json('What goes on from now', rolling), ...problems(...common, ...withBody) },
      },
    },
    async (request) => service.putRolling(request.params.name, request.body),
  );
  app.delete(
    '/v1/experiments/:name/rolling',
    {
      schema: {
        summary: 'Take no more rolling snapshots',
        description: 'Those that were taken stay.',
        operationId: 'removeRolling',
        tags,
        params: experimentParams,
        response: { 204: z.undefined().describe('It has ended'), ...problems(...common) },
      },
    },
    async (request, reply) => {
      service.removeRolling(request.params.name);
      return reply.code(204).send();
    },
  );
}

import { forkInput } from '../protocol/fork.ts';
import { snapshotParams } from './parameters.ts';
import { operationStarted, problems, sendOperation } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

export function forkRoutes(app: Router, { service }: RouteContext): void {
  app.post(
    '/v1/snapshots/:id/forks',
    {
      schema: {
        summary: 'Fork a snapshot',
        description:
          'Brings up copies of the whole experiment, each isolated from all others and an experiment of its own. All of them run in the end, or none is left. An empty body will do.',
        operationId: 'forkSnapshot',
        tags: ['snapshots'],
        params: snapshotParams,
        body: forkInput,
        response: {
          ...operationStarted,
          ...problems(
            ...(['unauthorized', 'not-found', 'wrong-state'] as const),
            ...(['invalid-input', 'body-too-large', 'unsupported-media-type'] as const),
          ),
        },
      },
    },
    async (request, reply) => sendOperation(reply, service.forkSnapshot(request.params.id, request.body)),
  );
}

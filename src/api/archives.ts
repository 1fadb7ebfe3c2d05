import { once } from 'node:events';
import { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';

import { archiveMediaType } from '../archive/portable.ts';
import { importInput, snapshot } from '../protocol/resources.ts';
import { cutShort } from './cut-short.ts';
import { importQuery, snapshotParams } from './parameters.ts';
import { json, problems } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

const tags = ['snapshots'];
const onHosts = ['host-unreachable', 'agent-lost', 'snapshot-damaged'] as const;

/** Snapshots as portable archives, streamed out and in. */
export function archiveRoutes(app: Router, context: RouteContext): void {
  exportRoute(app, context);
  importRoute(app, context);
}

function exportRoute(app: Router, { service, closing }: RouteContext): void {
  app.get(
    '/v1/snapshots/:id/export',
    {
      schema: {
        summary: 'Read a snapshot as one portable archive',
        description:
          'A tar archive, compressed with zstd, streamed as it is made. It ends early, without the last chunk, if something fails on the way.',
        operationId: 'exportSnapshot',
        tags,
        params: snapshotParams,
        response: {
          200: {
            description: 'The archive',
            content: { [archiveMediaType]: { schema: z.any().meta({ type: 'string', format: 'binary' }) } },
          },
          ...problems('unauthorized', 'not-found', 'wrong-state', ...onHosts),
        },
      },
    },
    async (request, reply) => {
      const { id } = service.getSnapshot(request.params.id);
      const archive = Readable.from(service.exportSnapshot(id, cutShort(reply, closing)), {
        objectMode: false,
      });
      // What fails before the first byte is still answered with its problem.
      await once(archive, 'readable');
      void reply.header('content-disposition', `attachment; filename="${id}.tar.zst"`);
      return reply.type(archiveMediaType).send(archive);
    },
  );
}

function importRoute(app: Router, { service, closing }: RouteContext): void {
  app.register(async (scope) => {
    scope.addContentTypeParser(
      [archiveMediaType, 'application/octet-stream'],
      (_request: FastifyRequest, payload: Readable, done: (error: null, body: Readable) => void) => {
        done(null, payload);
      },
    );
    (scope as Router).post(
      '/v1/snapshots/import',
      {
        schema: {
          summary: 'Take a snapshot in from a portable archive',
          description: `The body is the archive, of type ${archiveMediaType}, read as it comes and of any size. It is checked before the snapshot is there: names, format, and every checksum. What fails leaves nothing.`,
          operationId: 'importSnapshot',
          tags,
          querystring: importQuery,
          response: {
            201: json('The snapshot', snapshot),
            ...problems(
              ...([
                'invalid-input',
                'unauthorized',
                'not-found',
                'conflict',
                'unsupported-media-type',
              ] as const),
              ...(['snapshot-unfit', 'disk-full', ...onHosts] as const),
            ),
          },
        },
      },
      async (request, reply) => {
        const { experiment, name, map } = request.query;
        const input = importInput.parse({ experiment, name, map });
        const body = request.body instanceof Readable ? request.body : Readable.from([]);
        const taken = await service.importSnapshot(body, input, cutShort(reply, closing));
        return reply.code(201).header('location', `/v1/snapshots/${taken.id}`).send(taken);
      },
    );
  });
}

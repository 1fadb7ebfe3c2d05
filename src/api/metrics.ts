import { z } from 'zod';

import { problems } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

/** Prometheus' text exposition format, version 0.0.4. */
const metricsMediaType = 'text/plain; version=0.0.4; charset=utf-8';

export function metricsRoutes(app: Router, { service }: RouteContext): void {
  app.get(
    '/metrics',
    {
      schema: {
        summary: 'Metrics for Prometheus',
        operationId: 'getMetrics',
        tags: ['server'],
        response: {
          200: { description: 'Counters and histograms', content: { 'text/plain': { schema: z.string() } } },
          ...problems('unauthorized'),
        },
      },
    },
    async (_request, reply) => reply.type(metricsMediaType).send(await service.metrics()),
  );
}

import { health } from '../protocol/resources.ts';
import { json, problems } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

export function healthRoutes(app: Router, { service }: RouteContext): void {
  app.get(
    '/v1/health',
    {
      schema: {
        summary: 'Is the controller there?',
        operationId: 'getHealth',
        tags: ['server'],
        security: [],
        response: { 200: json('The controller is up', health), ...problems() },
      },
    },
    async () => service.health(),
  );
}

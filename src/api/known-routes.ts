import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import { StaghornError } from '../errors/index.ts';
import { sendProblem } from './problem.ts';

/** Answers addresses that no route serves: 405 with Allow if another method would do, else 404. */
export function answerUnknownRoutes(app: FastifyInstance): void {
  const routes: { pattern: RegExp; methods: string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    routes.push({ pattern: patternOf(url), methods: [method].flat() });
  });
  app.setNotFoundHandler((request: FastifyRequest, reply: FastifyReply) => {
    const path = request.url.replace(/[?#].*$/s, '');
    const methods = new Set(
      routes.filter(({ pattern }) => pattern.test(path)).flatMap((route) => route.methods),
    );
    if (methods.size === 0) {
      return sendProblem(
        reply,
        new StaghornError('not-found', `There is nothing at ${path}; /docs lists what there is`),
      );
    }
    const allow = [...methods].sort().join(', ');
    void reply.header('allow', allow);
    return sendProblem(
      reply,
      new StaghornError('method-not-allowed', `${request.method} is not for ${path}; ${allow} are`),
    );
  });
}

function patternOf(url: string): RegExp {
  const source = url
    .split('/')
    .map((part) => (part.startsWith(':') ? '[^/]+' : part === '*' ? '.*' : escape(part)))
    .join('/');
  return new RegExp(`^${source}$`);
}

function escape(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

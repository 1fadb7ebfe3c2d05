import { readFileSync } from 'node:fs';
import { z } from 'zod';

import { errorRegistry, isErrorCode, StaghornError, type ErrorCode } from '../errors/index.ts';
import { problems } from './responses.ts';
import type { Router } from './routes.ts';

/** `docs/errors.md` of the checkout: src/api and dist/api are equally deep. */
const errorsDocument = new URL('../../docs/errors.md', import.meta.url);

/** GET /problems/{code}: what a problem's `type` refers to (RFC 9457, section 3.1.1). */
export function problemPages(app: Router): void {
  const sections = readSections();
  app.get(
    '/problems/:code',
    {
      schema: {
        summary: 'Explain a kind of problem',
        operationId: 'explainProblem',
        tags: ['server'],
        security: [],
        params: z.object({ code: z.string().describe('The last part of the type of a problem') }),
        response: {
          200: {
            description: 'An explanation in Markdown',
            content: { 'text/plain': { schema: z.string() } },
          },
          ...problems('not-found'),
        },
      },
    },
    async (request, reply) => {
      const { code } = request.params;
      if (!isErrorCode(code))
        throw new StaghornError('not-found', `There is no kind of problem called "${code}"`);
      return reply.type('text/plain; charset=utf-8').send(sections.get(code) ?? sectionFromRegistry(code));
    },
  );
}

/** The sections of docs/errors.md by their heading; none where the document was not installed. */
function readSections(): Map<string, string> {
  let text = '';
  try {
    text = readFileSync(errorsDocument, 'utf8');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
  const sections = text.split(/^(?=## )/m).slice(1);
  return new Map(
    sections.map((section) => [/^## `?([a-z-]+)/.exec(section)?.[1] ?? '', `${section.trim()}\n`]),
  );
}

function sectionFromRegistry(code: ErrorCode): string {
  const { title, status, exit } = errorRegistry[code];
  return `## ${code}\n\n${title}. HTTP status ${status}, exit code ${exit}.\n`;
}

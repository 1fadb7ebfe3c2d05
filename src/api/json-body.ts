import type { FastifyInstance } from 'fastify';

import { messageOf, StaghornError } from '../errors/index.ts';
import { jsonErrorOffset, lineAndColumn } from './json-position.ts';

/** Reads JSON bodies: an error says where it is, and no body at all stands for `{}` where a body is described. */
export function readJsonBodies(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('text/plain');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body.length === 0) {
      done(null, undefined);
      return;
    }
    void parse(request, String(body), (error, value) => {
      done(error === null ? null : syntaxError(String(body), error), value);
    });
  });
  app.addHook('preValidation', async (request) => {
    if (request.routeOptions.schema?.body !== undefined) request.body ??= {};
  });
}

function syntaxError(text: string, error: unknown): StaghornError {
  const offset = jsonErrorOffset(text);
  if (offset === null) return new StaghornError('invalid-input', `The body is refused: ${messageOf(error)}`);
  const { line, column } = lineAndColumn(text, offset);
  const what = offset === text.length ? 'the text ends too early' : `unexpected ${quote(text, offset)}`;
  const where = `line ${line}, column ${column} (offset ${offset})`;
  return new StaghornError('invalid-input', `The body is not JSON: ${what} at ${where}`, { cause: error });
}

function quote(text: string, offset: number): string {
  return JSON.stringify(String.fromCodePoint(text.codePointAt(offset) ?? 0));
}

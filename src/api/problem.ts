import type { FastifyError, FastifyReply } from 'fastify';

import { asStaghornError, StaghornError, type ErrorCode } from '../errors/index.ts';
import { toProblem } from '../protocol/problem.ts';

export const problemMediaType = 'application/problem+json';

const byFastifyCode: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported-media-type',
  FST_ERR_CTP_BODY_TOO_LARGE: 'body-too-large',
};

/** Anything thrown in a request as one of our errors: Fastify's own by the table above, others by their nature. */
export function errorOfRequest(error: unknown): StaghornError {
  if (error instanceof StaghornError) return error;
  const code = codeOf(error);
  if (code === 'unsupported-media-type') {
    const message =
      'The body has a media type that is not understood here; send JSON with "Content-Type: application/json"';
    return new StaghornError(code, message, { cause: error });
  }
  return asStaghornError(error, code);
}

/** Answers with problem details; the one way in which an error leaves the API. */
export function sendProblem(reply: FastifyReply, error: StaghornError): FastifyReply {
  const problem = toProblem(error);
  return reply.code(problem.status).type(problemMediaType).send(JSON.stringify(problem));
}

function codeOf(error: unknown): ErrorCode {
  if (!(error instanceof Error)) return 'internal';
  const { code, statusCode } = error as Partial<FastifyError>;
  const known = code === undefined ? undefined : byFastifyCode[code];
  if (known !== undefined) return known;
  return statusCode !== undefined && statusCode >= 400 && statusCode < 500 ? 'invalid-input' : 'internal';
}

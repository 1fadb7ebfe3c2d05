import type { FastifyReply } from 'fastify';
import type { z } from 'zod';

import { errorRegistry, type ErrorCode } from '../errors/index.ts';
import { operation, problem, type Operation } from '../protocol/resources.ts';
import { problemMediaType } from './problem.ts';

/** What routes say about their answers: the types of their handlers and the OpenAPI document come from it. */

export function json<T extends z.ZodType>(description: string, schema: T) {
  return { description, content: { 'application/json': { schema } } };
}

/** 202: long work has begun; `sendOperation` answers so. 200: the same work has ended (waiting.ts). */
export const operationStarted = {
  200: json('With `Prefer: wait=SECONDS` (RFC 7240): the operation has ended', operation),
  202: json('The operation has begun; Location tells where to follow it', operation),
};

export function sendOperation(reply: FastifyReply, started: Operation) {
  return reply.code(202).header('location', `/v1/operations/${started.id}`).send(started);
}

type ProblemResponse = ReturnType<typeof problemResponse>;
type Problems<Code extends ErrorCode> = Record<(typeof errorRegistry)[Code]['status'], ProblemResponse>;

/** The problem details that a route may answer with. */
export function problems<Code extends ErrorCode>(...codes: Code[]): Problems<Code | 'internal'> {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of [...codes, 'internal' as const]) {
    const { status } = errorRegistry[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const entries = [...byStatus].map(([status, same]) => [status, problemResponse(same)] as const);
  return Object.fromEntries(entries) as Problems<Code | 'internal'>;
}

function problemResponse(codes: readonly ErrorCode[]) {
  const description = codes.map((code) => `\`${code}\`: ${errorRegistry[code].title}`).join('; ');
  return { description, content: { [problemMediaType]: { schema: problem } } };
}

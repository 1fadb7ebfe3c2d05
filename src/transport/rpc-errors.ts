import { ErrorCodes, ResponseError, type ResponseMessage } from 'vscode-jsonrpc/node.js';
import { z } from 'zod';
import { StaghornError, asStaghornError, isErrorCode, messageOf } from '../errors/index.ts';

// JSON-RPC 2.0, section 5.1: -32000 to -32099 are for the implementation. Ours are told apart by data.code.
const applicationError = -32000;

// Not strict: what a newer peer adds to an error must not hide the error.
const errorData = z.object({
  code: z.string(),
  message: z.string(),
  context: z
    .object({
      host: z.string().optional(),
      vm: z.string().optional(),
      port: z.string().optional(),
      problems: z.array(z.string()).readonly().optional(),
    })
    .optional(),
  stack: z.string().optional(),
});
type ErrorData = z.infer<typeof errorData>;

/** Anything a handler threw, in the form in which it crosses the wire. */
export function toResponseError(error: unknown): ResponseError<ErrorData> {
  const { code, message, context, stack } = asStaghornError(error);
  const origin = error instanceof Error ? (error.stack ?? stack) : stack;
  return new ResponseError(applicationError, message, {
    code,
    message,
    context: { ...context },
    stack: origin,
  });
}

/** The error response to a request whose answer, or which itself, cannot be sent. */
export function refusal(id: ResponseMessage['id'], error: unknown): ResponseMessage {
  return { jsonrpc: '2.0', id, error: toResponseError(error).toJson() };
}

/** An error response as the caller sees it: the peer's code and context, the host filled in. */
export function fromResponseError(error: unknown, method: string, host: string | undefined): StaghornError {
  if (error instanceof StaghornError) return error;
  if (!(error instanceof ResponseError))
    return new StaghornError('internal', messageOf(error), { cause: error });
  const response = error as ResponseError<unknown>;
  const parsed = errorData.safeParse(response.data);
  if (!parsed.success) {
    const violates =
      response.code === ErrorCodes.MethodNotFound || response.code === ErrorCodes.InvalidParams;
    return new StaghornError(violates ? 'protocol-violation' : 'internal', `${method}: ${response.message}`, {
      cause: response,
      context: { host },
    });
  }
  const { code, message, context, stack } = parsed.data;
  return new StaghornError(isErrorCode(code) ? code : 'internal', message, {
    cause: new PeerError(message, stack),
    context: { ...context, host: context?.host ?? host },
  });
}

/** What was thrown on the other side, kept as the cause for its stack. */
class PeerError extends Error {
  override readonly name = 'PeerError';

  constructor(message: string, stack: string | undefined) {
    super(message);
    if (stack !== undefined) this.stack = stack;
  }
}

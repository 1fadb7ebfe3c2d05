import { errorRegistry, StaghornError, type ErrorContext } from '../errors/index.ts';
import type { Problem } from './resources.ts';

/** The problem details (RFC 9457) of an error: the only place where one becomes the other. */
export function toProblem(error: StaghornError): Problem {
  const { host, vm, port, problems } = error.context;
  const { status, title } = errorRegistry[error.code];
  return {
    type: problemType(error.code),
    title,
    status,
    detail: error.message,
    code: error.code,
    ...(host === undefined ? {} : { host }),
    ...(vm === undefined ? {} : { vm }),
    ...(port === undefined ? {} : { port }),
    ...(problems === undefined ? {} : { problems: [...problems] }),
  };
}

/** The error that a problem from a server stands for. */
export function fromProblem(problem: Problem): StaghornError {
  const { host, vm, port, problems } = problem;
  const context: ErrorContext = { host, vm, port, problems };
  return new StaghornError(problem.code, problem.detail, { context });
}

/** A URI reference, relative to the server: `GET` of it answers with an explanation. */
function problemType(code: Problem['code']): string {
  return `/problems/${code}`;
}

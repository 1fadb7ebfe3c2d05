/**
 * Operating errors: one class, one closed set of codes. A code says what a caller can do about it; the message
 * says what was wrong, where, and what to do. Programmer errors are assertions and are not caught.
 */
export interface ErrorEntry {
  /** HTTP status of the problem details (RFC 9457). */
  readonly status: number;
  /** Exit code of the CLI. */
  readonly exit: number;
  readonly title: string;
}

/** Every code, with how it shows over HTTP and at the CLI; `docs/errors.md` has an entry for each (a test holds them together). */
export const errorRegistry = {
  'invalid-input': { status: 400, exit: 2, title: 'The request is not valid' },
  unauthorized: { status: 401, exit: 3, title: 'A bearer token is needed' },
  'origin-refused': { status: 403, exit: 3, title: 'The request comes from somewhere it may not come from' },
  'not-found': { status: 404, exit: 4, title: 'There is no such thing' },
  conflict: { status: 409, exit: 5, title: 'It is already there, or busy with something else' },
  'method-not-allowed': { status: 405, exit: 2, title: 'This address does not know that method' },
  'not-acceptable': { status: 406, exit: 2, title: 'The answer does not come in that media type' },
  'body-too-large': { status: 413, exit: 2, title: 'The request body is too large' },
  'unsupported-media-type': { status: 415, exit: 2, title: 'The request body has the wrong media type' },
  'server-unreachable': { status: 503, exit: 6, title: 'No Staghorn server answers' },
  'host-unreachable': { status: 502, exit: 10, title: 'A host cannot be reached' },
  'host-key-mismatch': { status: 502, exit: 11, title: "A host's key is not the one in known_hosts" },
  'authentication-failed': { status: 502, exit: 12, title: 'A host refused the login' },
  'privilege-missing': { status: 502, exit: 13, title: 'The agent cannot become root on a host' },
  'host-unfit': { status: 502, exit: 14, title: 'A host lacks something that Staghorn needs' },
  'agent-lost': { status: 502, exit: 15, title: 'The connection to an agent was lost' },
  'version-mismatch': { status: 502, exit: 16, title: 'Versions do not fit together' },
  'protocol-violation': { status: 502, exit: 17, title: 'A peer sent what the protocol does not allow' },
  'vm-unfit': { status: 422, exit: 20, title: 'A VM cannot be snapshotted as it is' },
  'vm-failed': { status: 502, exit: 21, title: 'A VM or its QEMU did not do as told' },
  'network-unfit': { status: 422, exit: 22, title: 'A network port cannot be held' },
  'frames-lost': { status: 500, exit: 23, title: 'Not every frame could be kept' },
  'frame-buffer-full': { status: 507, exit: 24, title: 'More frames arrived than there is room for' },
  'network-changed': { status: 409, exit: 25, title: 'The network was changed while time stood still' },
  'snapshot-damaged': { status: 422, exit: 30, title: 'A stored snapshot is damaged' },
  'snapshot-unfit': { status: 422, exit: 31, title: 'A snapshot does not fit this host' },
  'disk-full': { status: 507, exit: 32, title: 'There is not enough space' },
  'deadline-exceeded': { status: 504, exit: 40, title: 'A step took longer than it may' },
  'cut-too-late': { status: 504, exit: 43, title: 'A host was told of the cut too late' },
  cancelled: { status: 409, exit: 41, title: 'It was cancelled' },
  'wrong-state': { status: 409, exit: 42, title: 'That is not possible in this state' },
  internal: { status: 500, exit: 70, title: 'An error inside Staghorn' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorRegistry;

/** Where an error happened, for people and for programs. */
export interface ErrorContext {
  readonly host?: string | undefined;
  readonly vm?: string | undefined;
  readonly port?: string | undefined;
  /** Every single problem, where several were found at once. */
  readonly problems?: readonly string[] | undefined;
}

export class StaghornError extends Error {
  override readonly name = 'StaghornError';
  readonly code: ErrorCode;
  readonly context: ErrorContext;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; context?: ErrorContext } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.context = options.context ?? {};
  }
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export { allOf } from './all-of.ts';

/** The error as a StaghornError: itself, or wrapped under `code` with its text kept. */
export function asStaghornError(error: unknown, code: ErrorCode = 'internal', prefix = ''): StaghornError {
  if (error instanceof StaghornError) return error;
  return new StaghornError(errnoCode(error) ?? code, `${prefix}${messageOf(error)}`, { cause: error });
}

/** The one place where an errno becomes one of our codes. */
function errnoCode(error: unknown): ErrorCode | undefined {
  const errno = error instanceof Error && 'code' in error ? error.code : undefined;
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return 'disk-full';
  if (errno === 'ABORT_ERR') return 'cancelled';
  return undefined;
}

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorRegistry, code);
}

/** What went wrong, as a closed set: a caller can tell by the code what to do. */
export type OvsdbErrorCode =
  /** An operation of a transaction failed, and with it the transaction; see `failure`. */
  | 'operation-failed'
  /** The server refused a whole request (unknown database, bad syntax); see `failure`. */
  | 'request-failed'
  /** No answer within the time allowed. The request may still be carried out. */
  | 'timeout'
  /** The caller's AbortSignal fired. */
  | 'aborted'
  /** The connection is closed, or was closed while something was pending. */
  | 'disconnected'
  /** The server stayed silent although it was asked for an echo. */
  | 'inactive'
  /** The socket could not be connected to. */
  | 'connect-failed'
  /** A message is larger than the limit that the caller set. */
  | 'oversize'
  /** The peer sent what the protocol, or the schema, does not allow. */
  | 'protocol'
  /** More requests are pending than the session allows. */
  | 'too-many-pending';

/** The server's own account of a failure (RFC 7047, section 3.1, <error>). */
export interface OvsdbFailure {
  /** For example "constraint violation" or "unknown database". */
  readonly error: string;
  readonly details: string | undefined;
  /** The operation that failed; it is the number of operations if the commit itself failed (section 4.1.3). */
  readonly operationIndex: number | undefined;
}

export class OvsdbError extends Error {
  override readonly name = 'OvsdbError';
  readonly code: OvsdbErrorCode;
  /** Set if, and only if, `code` is 'operation-failed' or 'request-failed'. */
  readonly failure: OvsdbFailure | undefined;

  constructor(
    code: OvsdbErrorCode,
    message: string,
    options: { cause?: unknown; failure?: OvsdbFailure } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.failure = options.failure;
  }
}

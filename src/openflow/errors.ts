/** What went wrong, as a closed set. */
export type OpenFlowErrorCode =
  /** Nobody listens on the socket. */
  | 'connect-failed'
  /** The switch speaks no version that this client does (1.3 to 1.5). */
  | 'version'
  /** The switch refused a request; the message has its type and code. */
  | 'refused'
  | 'timeout'
  /** The caller's AbortSignal fired. */
  | 'aborted'
  /** The switch closed the connection. */
  | 'disconnected'
  /** What it has is larger than the limit. */
  | 'oversize'
  /** The switch sent what the protocol does not allow. */
  | 'protocol';

export class OpenFlowError extends Error {
  override readonly name = 'OpenFlowError';
  readonly code: OpenFlowErrorCode;

  constructor(code: OpenFlowErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
  }
}

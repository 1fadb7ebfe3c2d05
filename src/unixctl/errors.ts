/** What went wrong, as a closed set. */
export type UnixctlErrorCode =
  /** The daemon refused the command; the message is its own text. */
  | 'command-failed'
  /** The daemon's pid file cannot be read, or nobody listens on its socket. */
  | 'connect-failed'
  /** No answer within the time allowed. The command may still be carried out. */
  | 'timeout'
  /** The caller's AbortSignal fired. */
  | 'aborted'
  /** The connection is closed, or was closed while a command was pending. */
  | 'disconnected'
  /** The answer is larger than the limit. */
  | 'oversize'
  /** The daemon sent what the protocol does not allow. */
  | 'protocol'
  /** More commands are pending than the client allows. */
  | 'too-many-pending';

export class UnixctlError extends Error {
  override readonly name = 'UnixctlError';
  readonly code: UnixctlErrorCode;

  constructor(code: UnixctlErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
  }
}

/** What went wrong, as a closed set: a caller can tell by the code what to do. */
export type QmpErrorCode =
  /** QEMU answered the command with an error; `errorClass` and `description` are QEMU's own. */
  | 'command-failed'
  /** No answer, or no event, within the time allowed. The command may still be carried out. */
  | 'timeout'
  /** The caller's AbortSignal fired, or a prepared command was cancelled. */
  | 'aborted'
  /** The connection is closed, or was closed while something was pending. */
  | 'disconnected'
  /** The socket could not be connected to. */
  | 'connect-failed'
  /** Connected, but QEMU did not greet: a QMP socket serves one client at a time. */
  | 'no-greeting'
  /** A message is larger than the limit that the caller set. */
  | 'oversize'
  /** The peer sent what the protocol does not allow. */
  | 'protocol'
  /** More commands are pending than the session allows. */
  | 'too-many-pending';

/** QEMU's side of a failed command (QEMU docs/interop/qmp-spec.txt, section 2.4.2). */
export interface QmpCommandFailure {
  readonly command: string;
  readonly errorClass: string;
  readonly description: string;
}

export class QmpError extends Error {
  override readonly name = 'QmpError';
  readonly code: QmpErrorCode;
  /** Set if, and only if, `code` is 'command-failed'. */
  readonly failure: QmpCommandFailure | undefined;

  constructor(
    code: QmpErrorCode,
    message: string,
    options: { cause?: unknown; failure?: QmpCommandFailure } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.failure = options.failure;
  }
}

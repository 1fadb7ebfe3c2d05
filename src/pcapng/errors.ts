/** What went wrong, as a closed set. */
export type PcapngErrorCode =
  /** The file ends within a block. */
  | 'truncated'
  /** The bytes are no pcapng file, or contradict themselves. */
  | 'malformed'
  /** Valid, but not read here: another major version, or packets without a time or an interface. */
  | 'unsupported'
  /** What is to be written does not fit the format. */
  | 'invalid-argument';

export class PcapngError extends Error {
  override readonly name = 'PcapngError';
  readonly code: PcapngErrorCode;

  constructor(code: PcapngErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface TransportHandlers {
  onData(chunk: Uint8Array): void;
  /** Called once, after the last `onData`. `cause` is missing if either side simply closed. */
  onClosed(cause: Error | undefined): void;
}

/** A byte stream to QEMU that is connected already. */
export interface Transport {
  /** The file descriptor beneath, or undefined if there is none or it is closed. */
  readonly fd: number | undefined;
  /** Bytes that were given to `write` and have not reached the kernel. */
  readonly unwrittenBytes: number;
  /** Begins to deliver; called once. What arrived earlier is delivered then. */
  start(handlers: TransportHandlers): void;
  /** From now on nothing is read, and what is written waits, until the returned function is called. */
  leaveAlone(): () => void;
  write(bytes: Uint8Array): void;
  /** Closes without waiting for anything; `onClosed` follows. May be called again. */
  close(): void;
}

export interface QmpRequest {
  readonly id: string;
  readonly command: string;
  readonly args?: object | undefined;
  /** Run it out of band (`exec-oob`, qmp-spec.txt, section 2.3.1); needs the capability 'oob'. */
  readonly outOfBand?: boolean | undefined;
}

/** One command as the bytes that go onto the socket: its last byte is the one that completes it. */
export function encodeCommand(request: QmpRequest): Buffer {
  const verb = request.outOfBand === true ? 'exec-oob' : 'execute';
  const message = { [verb]: request.command, arguments: request.args, id: request.id };
  return Buffer.from(JSON.stringify(message));
}

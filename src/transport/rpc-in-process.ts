import { PassThrough } from 'node:stream';
import type { RpcConnection } from './rpc-peer.ts';

export interface InProcessOptions {
  /** What the client calls the server's host in errors. */
  readonly host?: string | undefined;
  readonly maxMessageBytes?: number | undefined;
}

/** Two connections, each the other's peer, in one process: for tests and simulation. The bytes are the real ones. */
export function createInProcessPair(options: InProcessOptions = {}): {
  client: RpcConnection;
  server: RpcConnection;
} {
  const { host, maxMessageBytes } = options;
  const toServer = new PassThrough();
  const toClient = new PassThrough();
  // A reader that is gone must end the writer, as a closed socket does.
  toServer.on('close', () => toClient.end());
  toClient.on('close', () => toServer.end());
  return {
    client: { readable: toClient, writable: toServer, host, maxMessageBytes },
    server: { readable: toServer, writable: toClient, maxMessageBytes },
  };
}

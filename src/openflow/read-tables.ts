import { connectUnixSocket, OvsdbError, Waiter, type Transport } from '../ovsdb/index.ts';
import { TableDump, type DumpedTables } from './dump.ts';
import { OpenFlowError } from './errors.ts';
import { OpenFlowDecoder } from './messages.ts';

export const defaultTimeoutMs = 10_000;

export interface ReadTablesOptions {
  readonly signal?: AbortSignal | undefined;
  /** For all of it; 10 s by default. */
  readonly timeoutMs?: number | undefined;
}

/** Reads all flows, groups and meters of a bridge by its management socket, BRIDGE.mgmt. @throws OpenFlowError */
export async function readTables(path: string, options: ReadTablesOptions = {}): Promise<DumpedTables> {
  const { signal, timeoutMs = defaultTimeoutMs } = options;
  let transport: Transport | undefined;
  try {
    transport = await connectUnixSocket(path, { signal, timeoutMs });
    const read = new Waiter<DumpedTables>({ what: `reading ${path}`, signal, timeoutMs });
    converse(transport, read);
    return await read.promise;
  } catch (error) {
    throw asOpenFlowError(error);
  } finally {
    transport?.close();
  }
}

function converse(transport: Transport, read: Waiter<DumpedTables>): void {
  const decoder = new OpenFlowDecoder();
  const dump = new TableDump();
  transport.start({
    onData: (chunk) => {
      if (read.settled) return;
      try {
        for (const message of decoder.push(chunk)) {
          const answer = dump.receive(message);
          if (answer !== null) transport.write(answer);
        }
        const { result } = dump;
        if (result !== null) read.resolve(result);
      } catch (cause) {
        read.reject(new OvsdbError('protocol', String(cause), { cause }));
      }
    },
    onClosed: (cause) => {
      read.reject(new OvsdbError('disconnected', 'the bridge closed the connection', { cause }));
    },
  });
  transport.write(dump.begin());
}

/** Socket and waiter are those of the OVSDB client, and so are their errors. */
function asOpenFlowError(error: unknown): unknown {
  if (!(error instanceof OvsdbError)) return error;
  if (error.cause instanceof OpenFlowError) return error.cause;
  const { code, message } = error;
  const isKnown =
    code === 'timeout' || code === 'aborted' || code === 'disconnected' || code === 'connect-failed';
  return new OpenFlowError(isKnown ? code : 'protocol', message, { cause: error });
}

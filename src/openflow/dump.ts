import { OpenFlowError } from './errors.ts';
import { encodeMessage, messageType, type OpenFlowMessage } from './messages.ts';

/** What a switch has, in the binary form of its OpenFlow version: the bodies of all replies, one after another. */
export interface DumpedTables {
  /** As on the wire: 4 is OpenFlow 1.3, 6 is 1.5. */
  readonly version: number;
  /** Each is a struct ofp_flow_stats; in OpenFlow 1.5 a struct ofp_flow_desc. */
  readonly flows: Buffer;
  readonly groups: Buffer;
  readonly meters: Buffer;
}

const oldest = 4;
const newest = 6;
const maxBytes = 64 * 1024 * 1024;
const all = { table: 0xff, port: 0xffffffff, group: 0xffffffff, everyGroup: 0xfffffffc, meter: 0xffffffff };

type Table = 'flows' | 'groups' | 'meters';
/** Also the transaction ids. Types of multipart messages (section 7.3.5, enum ofp_multipart_type). */
const tables = [
  { xid: 1, table: 'flows', type: 1 },
  { xid: 2, table: 'groups', type: 7 },
  { xid: 3, table: 'meters', type: 10 },
] as const satisfies readonly { xid: number; table: Table; type: number }[];
const multipartHeaderBytes = 8;
const flagMore = 1;

/** The conversation in which a switch tells all of its flows, groups and meters, without a connection. */
export class TableDump {
  readonly #parts: Readonly<Record<Table, Buffer[]>> = { flows: [], groups: [], meters: [] };
  readonly #waiting = new Set<Table>(['flows', 'groups', 'meters']);
  #version: number | undefined;
  #bytes = 0;

  /** What is sent first: the versions that are spoken (section 6.3.1). */
  begin(): Buffer {
    const element = Buffer.alloc(8);
    element.writeUInt16BE(1, 0);
    element.writeUInt16BE(8, 2);
    element.writeUInt32BE(versionBits(oldest, newest), 4);
    return encodeMessage({ version: newest, type: messageType.hello, xid: 0, body: element });
  }

  /** @returns what is to be sent now, if anything. @throws OpenFlowError */
  receive(message: OpenFlowMessage): Buffer | null {
    const { type, xid, body } = message;
    if (type === messageType.hello) return this.#greeted(message);
    if (type === messageType.echoRequest) return encodeMessage({ ...message, type: messageType.echoReply });
    if (type === messageType.error) throw refusal(body);
    const asked = tables.find((one) => one.xid === xid);
    if (type === messageType.multipartReply && asked !== undefined) this.#add(asked.table, body);
    return null;
  }

  /** Everything; null before it has come. */
  get result(): DumpedTables | null {
    if (this.#version === undefined || this.#waiting.size > 0) return null;
    const { flows, groups, meters } = this.#parts;
    return {
      version: this.#version,
      flows: Buffer.concat(flows),
      groups: Buffer.concat(groups),
      meters: Buffer.concat(meters),
    };
  }

  #greeted(hello: OpenFlowMessage): Buffer {
    const version = commonVersion(hello);
    this.#version = version;
    return Buffer.concat(
      tables.map(({ xid, table, type }) =>
        encodeMessage({
          version,
          type: messageType.multipartRequest,
          xid,
          body: multipart(type, wishOf[table](version)),
        }),
      ),
    );
  }

  #add(table: Table, body: Buffer): void {
    if (body.length < multipartHeaderBytes)
      throw new OpenFlowError('protocol', 'a multipart reply without a header');
    this.#bytes += body.length;
    if (this.#bytes > maxBytes) throw new OpenFlowError('oversize', `more than ${maxBytes} bytes of flows`);
    this.#parts[table].push(body.subarray(multipartHeaderBytes));
    if ((body.readUInt16BE(2) & flagMore) === 0) this.#waiting.delete(table);
  }
}

/** The bodies of the requests (sections 7.3.5.2, 7.3.5.9 and 7.3.5.13). Before 1.5 groups are asked for with none. */
const wishOf: Readonly<Record<Table, (version: number) => Buffer>> = {
  flows: () => {
    const body = Buffer.alloc(40);
    body.writeUInt8(all.table, 0);
    body.writeUInt32BE(all.port, 4);
    body.writeUInt32BE(all.group, 8);
    // A match of OXM with no field: type 1, 4 bytes, padded to 8.
    body.writeUInt16BE(1, 32);
    body.writeUInt16BE(4, 34);
    return body;
  },
  groups: (version) => (version < newest ? Buffer.alloc(0) : padded(all.everyGroup)),
  meters: () => padded(all.meter),
};

function padded(number: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt32BE(number, 0);
  return body;
}

function multipart(type: number, body: Buffer): Buffer {
  const header = Buffer.alloc(multipartHeaderBytes);
  header.writeUInt16BE(type, 0);
  return Buffer.concat([header, body]);
}

const versionBits = (from: number, to: number) => ((1 << (to + 1)) - 1) & ~((1 << from) - 1);

/** The newest that both know: by the bitmaps where the switch sends one, else the smaller of the two numbers. */
function commonVersion({ version, body }: OpenFlowMessage): number {
  const bits = bitmapOf(body) ?? versionBits(1, Math.min(version, newest));
  const common = bits & versionBits(oldest, newest);
  if (common === 0) throw new OpenFlowError('version', 'the bridge speaks no OpenFlow of 1.3 to 1.5');
  return 31 - Math.clz32(common);
}

function bitmapOf(body: Buffer): number | null {
  for (let at = 0; at + 8 <= body.length;) {
    const length = body.readUInt16BE(at + 2);
    if (length < 4) throw new OpenFlowError('protocol', 'an element of a hello without a length');
    if (body.readUInt16BE(at) === 1) return body.readUInt32BE(at + 4);
    at += Math.ceil(length / 8) * 8;
  }
  return null;
}

function refusal(body: Buffer): OpenFlowError {
  const [type, code] = body.length < 4 ? ['?', '?'] : [body.readUInt16BE(0), body.readUInt16BE(2)];
  return new OpenFlowError('refused', `the bridge refused a request with error type ${type}, code ${code}`);
}

import { isIPv4, isIPv6 } from 'node:net';
import { decodeAttributes } from './netlink-codec.ts';
import { ask, isErrno } from './rtnetlink.ts';

/** include/uapi/linux/rtnetlink.h */
const type = { newRoute: 24, getRoute: 26 } as const;
const attribute = { destination: 1, outputDevice: 4 } as const;
const routeHeaderBytes = 12;
const family = { ipv4: 2, ipv6: 10 } as const;

/** The device by which packets to an IP address leave; null if there is no route. Throws an ErrnoError. */
export function routeDevice(address: string): number | null {
  if (!isIPv4(address) && !isIPv6(address)) throw new RangeError(`${address} is no IP address`);
  const value = isIPv4(address) ? ipv4Bytes(address) : ipv6Bytes(address);
  const body = Buffer.alloc(routeHeaderBytes);
  body[0] = isIPv4(address) ? family.ipv4 : family.ipv6;
  body[1] = 8 * value.length;
  try {
    const request = { type: type.getRoute, body, attributes: [{ type: attribute.destination, value }] };
    const route = ask(request, `RTM_GETROUTE ${address}`).find((message) => message.type === type.newRoute);
    const device = decodeAttributes(route?.body.subarray(routeHeaderBytes)).get(attribute.outputDevice);
    return device?.readUInt32LE(0) ?? null;
  } catch (error) {
    if (isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH')) return null;
    throw error;
  }
}

const ipv4Bytes = (address: string) => Buffer.from(address.split('.').map(Number));

/** RFC 4291, section 2.2: groups, "::" for as many zeros as are missing, and perhaps IPv4 at the end. */
function ipv6Bytes(address: string): Buffer {
  const groupsOf = (text: string) => (text === '' ? [] : text.split(':').flatMap(groupBytes));
  const [front = '', back] = address.split('%', 1)[0]!.split('::');
  const [head, tail] = [groupsOf(front), groupsOf(back ?? '')];
  return Buffer.from([...head, ...Array<number>(16 - head.length - tail.length).fill(0), ...tail]);
}

function groupBytes(group: string): number[] {
  if (group.includes('.')) return [...ipv4Bytes(group)];
  const value = Number.parseInt(group, 16);
  return [value >> 8, value & 0xff];
}

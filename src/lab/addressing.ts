import { StaghornError } from '../errors/index.ts';
import { addressIn, parseSubnet, type Subnet } from './subnet.ts';

/** Host i has address FIRST_HOST + i in each subnet, VM i address FIRST_VM + i in its networks. */
export const FIRST_HOST = 11;
export const FIRST_VM = 1;

/** With the prefix length: "198.18.0.11/24". @throws StaghornError 'invalid-input' */
export function needAddress(subnet: Subnet, n: number, what: string): string {
  const address = addressIn(subnet, n);
  if (address === undefined) throw new StaghornError('invalid-input', `the subnet is too small for ${what}`);
  return `${address}/${subnet.prefix}`;
}

export function bare(address: string): string {
  return address.split('/', 1)[0]!;
}

export function subnetFrom(text: string): Subnet {
  const subnet = parseSubnet(text);
  if (subnet === undefined) throw new StaghornError('invalid-input', `${text} is no subnet`);
  return subnet;
}

/** Locally administered, and the same for the same file. */
export function macOf(kind: number, major: number, minor: number): string {
  const bytes = [0x02, 0x53, 0x47, kind, major, minor];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

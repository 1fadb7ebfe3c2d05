/** IPv4 subnets, as far as a lab needs them. */
export interface Subnet {
  readonly base: number;
  readonly prefix: number;
}

function toNumber(address: string): number | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(address)?.slice(1).map(Number);
  if (parts === undefined || parts.some((part) => part > 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

function toText(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

function sizeOf(subnet: Subnet): number {
  return 2 ** (32 - subnet.prefix);
}

/** Nothing if the text is no subnet or has bits set beyond its prefix. */
export function parseSubnet(text: string): Subnet | undefined {
  const [address, length, more] = text.split('/');
  const base = toNumber(address ?? '');
  const prefix = /^\d{1,2}$/.test(length ?? '') ? Number(length) : 99;
  if (base === undefined || more !== undefined || prefix > 32) return undefined;
  return base % 2 ** (32 - prefix) === 0 ? { base, prefix } : undefined;
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return a.base < b.base + sizeOf(b) && b.base < a.base + sizeOf(a);
}

/** The n-th address; nothing if it is the broadcast address or beyond. */
export function addressIn(subnet: Subnet, n: number): string | undefined {
  return n > 0 && n < sizeOf(subnet) - 1 ? toText(subnet.base + n) : undefined;
}

export function containsAddress(subnet: Subnet, address: string): boolean {
  const value = toNumber(address);
  return value !== undefined && value > subnet.base && value < subnet.base + sizeOf(subnet) - 1;
}

/** The subnet that an address with a prefix length lies in. */
export function subnetOf(address: string, prefix: number): Subnet | undefined {
  const value = toNumber(address);
  return value === undefined ? undefined : { base: value - (value % 2 ** (32 - prefix)), prefix };
}

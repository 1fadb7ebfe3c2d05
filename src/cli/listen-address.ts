import type { AddressInfo } from 'node:net';

import { StaghornError } from '../errors/index.ts';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT`, `[IPV6]:PORT`; port 0 is any free one. */
export function parseListen(text: string): ListenAddress {
  const [, ipv6, name, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = ipv6 ?? name;
  if (host !== undefined && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new StaghornError('invalid-input', `"${text}" is not HOST:PORT to listen at`);
}

/** A URL by which programs on this machine reach it, also if it listens at all addresses. */
export function localUrl({ address, port }: AddressInfo): string {
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

export function isLoopback({ address }: AddressInfo): boolean {
  return address === '::1' || address.startsWith('127.');
}

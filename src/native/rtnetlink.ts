import { constants } from 'node:os';
import { loadAddon } from './addon.ts';
import { decodeAnswer, encodeRequests, flag } from './netlink-codec.ts';
import type { Message, Request } from './netlink-codec.ts';

interface NetlinkAddon {
  netlinkExchange(protocol: number, requests: Buffer): Buffer;
  enterNetworkNamespace(path: string): void;
}

const addon = loadAddon() as NetlinkAddon;
const NETLINK_ROUTE = 0;
const DUMP_TRIES = 10;

const errnoNames = new Map(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));

/** A system call's failure with `code`, `errno` and `syscall`, as Node's own errors carry them. */
export class ErrnoError extends Error {
  override readonly name = 'ErrnoError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(errno: number, syscall: string, detail = '') {
    const code = errnoNames.get(errno) ?? 'EUNKNOWN';
    super(`${syscall}: ${code}${detail === '' ? '' : ` (${detail})`}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

export function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

/** Asks the kernel for a list, in the calling process's network namespace. Throws {@link ErrnoError}. */
export function dump(request: Omit<Request, 'flags'>, what: string): readonly Message[] {
  for (let tries = 1; ; tries++) {
    const bytes = addon.netlinkExchange(NETLINK_ROUTE, encodeRequests([{ ...request, flags: flag.dump }]));
    const { messages, acknowledgements, interrupted } = decodeAnswer(bytes);
    const failed = acknowledgements.find(({ errno }) => errno !== 0);
    if (failed !== undefined) throw new ErrnoError(failed.errno, what, failed.text);
    if (!interrupted || tries === DUMP_TRIES) return messages;
  }
}

/** Asks the kernel about one thing. Throws {@link ErrnoError}. */
export function ask(request: Omit<Request, 'flags'>, what: string): readonly Message[] {
  const bytes = addon.netlinkExchange(NETLINK_ROUTE, encodeRequests([{ ...request, flags: flag.ack }]));
  const { messages, acknowledgements } = decodeAnswer(bytes);
  const failed = acknowledgements.find(({ errno }) => errno !== 0);
  if (failed !== undefined) throw new ErrnoError(failed.errno, what, failed.text);
  return messages;
}

/** Has the kernel change something. Throws {@link ErrnoError} with the kernel's own words where it gives any. */
export function change(request: Request, what: string): void {
  const requests = encodeRequests([{ ...request, flags: request.flags | flag.ack }]);
  const { acknowledgements } = decodeAnswer(addon.netlinkExchange(NETLINK_ROUTE, requests));
  const failed = acknowledgements.find(({ errno }) => errno !== 0);
  if (failed !== undefined) throw new ErrnoError(failed.errno, what, failed.text);
}

/**
 * Moves the calling thread into a network namespace, given by a path such as /run/netns/NAME or
 * /proc/PID/ns/net; threads that it starts later follow. Throws an error with an errno's `code`.
 */
export function enterNetworkNamespace(path: string): void {
  addon.enterNetworkNamespace(path);
}

import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { createRequire } from 'node:module';

const ioctl = createRequire(import.meta.url)('ioctl-native') as (
  fd: number,
  request: number,
  argument: Buffer,
) => number;

// Linux: include/uapi/linux/if_tun.h, if.h
const tunSetIff = 0x400454ca;
const ifreqBytes = 40;
const ifNameBytes = 16;
const iffTap = 0x0002;
const iffNoPi = 0x1000;
const iffVnetHdr = 0x4000;
const address = '198.51.100.1';
const peer = '198.51.100.2';

/** A tap with virtio-net headers of 10 bytes, alone in a network namespace of its own. */
export class TestTap {
  readonly #name = `sgt${process.pid}`;
  readonly #namespace = `staghorn-tap-${process.pid}`;
  readonly fd: number;

  constructor() {
    this.fd = openSync('/dev/net/tun', 'r+');
    try {
      const request = Buffer.alloc(ifreqBytes);
      request.write(this.#name);
      request.writeUInt16LE(iffTap | iffNoPi | iffVnetHdr, ifNameBytes);
      if (ioctl(this.fd, tunSetIff, request) !== 0) throw new Error('TUNSETIFF failed');
      this.#ip('netns', 'add', this.#namespace);
      this.#ip('link', 'set', this.#name, 'netns', this.#namespace);
      const inside = ['-n', this.#namespace];
      this.#ip(...inside, 'link', 'set', this.#name, 'addrgenmode', 'none');
      this.#ip(...inside, 'addr', 'add', `${address}/24`, 'dev', this.#name);
      this.#ip(...inside, 'link', 'set', this.#name, 'up');
      this.#ip(...inside, 'neigh', 'add', peer, 'lladdr', '02:00:00:00:00:02', 'dev', this.#name);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Leaves UDP datagrams with these texts in the tap's ring. */
  send(texts: readonly string[]): void {
    const script = texts.map((text) => `printf '${text}' >/dev/udp/${peer}/9`).join('\n');
    execFileSync('ip', ['netns', 'exec', this.#namespace, 'bash', '-ec', script]);
  }

  close(): void {
    closeSync(this.fd);
    try {
      this.#ip('netns', 'del', this.#namespace);
    } catch {
      return; // it was not made
    }
  }

  #ip(...args: string[]): void {
    execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  }
}

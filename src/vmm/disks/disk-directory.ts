import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, mkdir, open, rm, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { asStaghornError, StaghornError } from '../../errors/index.ts';
import { thisProcess, type ProcessIdentity } from '../process-identity.ts';
import { emptyOverlay, maxBackingPathBytes, type BackingImage } from './qcow2.ts';

/** What an overlay should find free when a VM begins to write to it. */
export const overlaySpareBytes = 64 * 1024 * 1024;
/** A layer that is not written any more. */
const frozenMode = 0o400;
const liveMode = 0o600;

export interface OverlayRequest {
  readonly vm: string;
  readonly owner: { readonly uid: number; readonly gid: number };
  readonly virtualBytes: number;
  readonly backing: BackingImage;
}

/**
 * The images that are Staghorn's: overlays, which VMs go on in after a snapshot or a restore, and what came with a
 * part from elsewhere.
 *
 * Invariants:
 * - the name of each has the VM and the agent that made it, so that another agent leaves alone what is being made;
 * - what this agent has under way is held, and never collected.
 */
export class DiskDirectory {
  readonly path: string;
  readonly #held = new Map<string, number>();

  constructor(path: string) {
    this.path = path;
  }

  isOurs(path: string): boolean {
    return dirname(path) === this.path;
  }

  isHeld(path: string): boolean {
    return this.#held.has(path);
  }

  hold(paths: readonly string[]): void {
    for (const path of paths) this.#held.set(path, (this.#held.get(path) ?? 0) + 1);
  }

  letGo(paths: readonly string[]): void {
    for (const path of paths) {
      const left = (this.#held.get(path) ?? 0) - 1;
      if (left > 0) this.#held.set(path, left);
      else this.#held.delete(path);
    }
  }

  /** A path that no file has, held. */
  async newPath(vm: string, format: 'qcow2' | 'raw' = 'qcow2'): Promise<string> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
    const path = join(this.path, imageName(vm, thisProcess(), randomBytes(6).toString('hex'), format));
    this.hold([path]);
    return path;
  }

  /** An empty overlay, held. @throws StaghornError 'disk-full', 'vm-unfit' */
  async createOverlay({ vm, owner, virtualBytes, backing }: OverlayRequest): Promise<string> {
    if (Buffer.byteLength(backing.path) > maxBackingPathBytes)
      throw new StaghornError(
        'vm-unfit',
        `VM ${vm}: the path of its disk image is too long: ${backing.path}`,
      );
    const { head, fileBytes } = emptyOverlay(virtualBytes, backing);
    const path = await this.newPath(vm);
    try {
      const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, liveMode);
      try {
        await file.writeFile(head);
        await file.truncate(fileBytes);
        await file.chown(owner.uid, owner.gid);
      } finally {
        await file.close();
      }
      return path;
    } catch (error) {
      await this.remove([path]);
      throw asStaghornError(error, 'internal', `making the overlay ${path}: `);
    }
  }

  /** A layer of ours stays as it is from now on. */
  async freeze(path: string): Promise<void> {
    if (this.isOurs(path)) await chmod(path, frozenMode);
  }

  async remove(paths: readonly string[]): Promise<void> {
    for (const path of paths) await rm(path, { force: true });
    this.letGo(paths);
  }

  async freeBytes(): Promise<number> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
    const { bfree, bsize } = await statfs(this.path);
    return bfree * bsize;
  }
}

/** Of a copy that is not whole yet. */
export const partialSuffix = '.partial';

/** The name of an image of a VM; who makes it is in it, and is the only one who may remove it while it runs. */
export const imageName = (
  vm: string,
  { pid, startTicks }: ProcessIdentity,
  unique: string,
  format: 'qcow2' | 'raw' = 'qcow2',
): string => `${vm}.${pid}-${startTicks}.${unique}.${format}`;

/** Null: the name is not one of ours. */
export function parseImageName(name: string): { vm: string; maker: ProcessIdentity } | null {
  const parsed = /^(.+)\.(\d+)-(\d+)\.[0-9a-f]{12}\.(?:qcow2|raw)$/.exec(name);
  if (parsed === null) return null;
  return { vm: parsed[1]!, maker: { pid: Number(parsed[2]), startTicks: BigInt(parsed[3]!) } };
}

export const isFrozen = (mode: number) => (mode & 0o200) === 0;

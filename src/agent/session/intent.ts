import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

import { messageOf } from '../../errors/index.ts';
import { placement } from '../../protocol/fork.ts';
import { instantNs } from '../../protocol/instant.ts';

const gateIdentity = z.strictObject({ stateMapId: z.int(), ringMapId: z.int(), nonce: instantNs });

/**
 * What a barrier is about to do to this host, written down before it does it, so that whoever finds the host
 * after a crash can put it right: which VMs may be stopped, and where the held frames are.
 */
export const intent = z.strictObject({
  barrier: z.string(),
  agent: z.strictObject({ pid: z.int(), startTicks: instantNs }),
  /** A restore that fails leaves no VM: those it started are ended. */
  kind: z.enum(['stop', 'restore']),
  /** A restore is `loading` from before its first QEMU is started until all of them are under control. */
  phase: z.enum(['loading', 'armed', 'resumed']),
  snapshot: z.string().nullable(),
  vms: z.array(
    z.strictObject({
      name: z.string(),
      pid: z.int(),
      startTicks: instantNs,
      qmpSocket: z.string(),
      /** It must run afterwards. */
      resumes: z.boolean(),
      stoppedAtNs: instantNs.nullable(),
      taps: z.array(
        z.strictObject({
          tap: z.string(),
          ifindex: z.int(),
          slot: z.int(),
          /** Of a restore: how many frames its gate had returned before those of the snapshot. */
          preloadedFrom: z.int(),
        }),
      ),
    }),
  ),
  /** Of a restore: persistent taps that are closed until the gate stands in them. */
  plugged: z.array(z.string()),
  /**
   * Of a restore: its VMs, and where they are put if they are a fork. Others may run from the same snapshot. The part
   * it reads may be one that was copied from another host; null: an earlier version's, which wrote none.
   */
  restores: z
    .strictObject({
      vms: z.array(z.string()),
      placement: placement.nullable(),
      part: z.string().nullable().default(null),
    })
    .nullable()
    .default(null),
  /** Null: there is none yet. */
  gate: gateIdentity.nullable(),
  /** Where frames from outside are held; null: nowhere. */
  edge: z
    .strictObject({
      gate: gateIdentity,
      policy: z.enum(['hold', 'drop']),
      ports: z.array(
        z.strictObject({
          name: z.string(),
          ifindex: z.int(),
          mtu: z.int(),
          mac: z.string(),
          slot: z.int(),
        }),
      ),
    })
    .nullable(),
  /** The sockets of the switch that are made larger, and how large they were; null: none. */
  buffers: z
    .strictObject({
      pid: z.int(),
      sockets: z.array(z.strictObject({ inode: z.int(), bytes: z.int() })),
    })
    .nullable()
    .default(null),
});
export type Intent = z.infer<typeof intent>;

/**
 * The intents of a host: one small file for each barrier under way, on a file system that a reboot clears, which is in
 * memory. They are written by the event loop itself: to hand that to a thread takes longer, and VMs stand meanwhile.
 */
export class IntentJournal {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async write(entry: Intent): Promise<void> {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const path = this.#pathOf(entry.barrier);
    // Written aside and renamed: a reader finds the old intent or the new one. It must survive a killed process,
    // not a power failure, after which there are no VMs to resume: it is not synced.
    writeFileSync(`${path}.new`, JSON.stringify(z.encode(intent, entry)), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  /** Where the frames are that the barrier took out of its taps' rings. */
  leftoversOf(barrier: string): string {
    return join(this.#directory, `${barrier}.leftovers`);
  }

  async remove(barrier: string): Promise<void> {
    // Before the intent, which leads to it.
    rmSync(this.leftoversOf(barrier), { force: true });
    rmSync(this.#pathOf(barrier), { force: true });
    // Of a writer that was killed before it could rename.
    rmSync(`${this.#pathOf(barrier)}.new`, { force: true });
  }

  /** @param onUnreadable told, in words, of each that another version of the agent left and this one cannot read */
  async readAll(onUnreadable: (problem: string) => void): Promise<Intent[]> {
    const names = (await readdir(this.#directory).catch(() => [])).filter((name) => name.endsWith('.json'));
    const entries: Intent[] = [];
    for (const name of names) {
      const path = join(this.#directory, name);
      const text = await readFile(path, 'utf8').catch(() => null);
      // Another process may have finished it in the meantime.
      if (text === null) continue;
      try {
        entries.push(z.decode(intent, JSON.parse(text) as z.input<typeof intent>));
      } catch (error) {
        onUnreadable(`${path} cannot be read: ${messageOf(error)}`);
      }
    }
    return entries;
  }

  #pathOf(barrier: string): string {
    return join(this.#directory, `${barrier}.json`);
  }
}

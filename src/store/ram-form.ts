import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { canIdentifyPages, identityKeyBytes } from '../native/page-identity.ts';
import type { SavedRam, StoringOptions } from '../native/ram.ts';
import type { StoredLayer, StoredRam } from './manifest.ts';
import { readChunkChecksums } from './ram-checksums.ts';
import type { RamParent } from './ram-parent.ts';
import { hashFile } from './snapshot-directory.ts';

/** What the form of RAM that is about to be stored depends on. */
export interface RamFormOptions {
  readonly parent: RamParent | null;
  /** Of zstd; 0: not compressed. */
  readonly level: number;
}

/** The stored form of one block of guest RAM: which files it gets, and how the manifest describes them. */
export class RamForm {
  readonly #options: RamFormOptions;
  readonly #file: string;

  constructor(file: string, options: RamFormOptions) {
    this.#file = file;
    this.#options = options;
  }

  /** Uncompressed and without a parent, RAM is stored in full: a restore maps it as it is. */
  get isLayered(): boolean {
    return this.#options.parent !== null || this.#options.level > 0;
  }

  storing(directory: string): StoringOptions {
    const { parent, level } = this.#options;
    const key = parent?.key ?? randomBytes(identityKeyBytes);
    return {
      placesFile: this.isLayered ? join(directory, this.#placesFile) : null,
      level,
      identities: canIdentifyPages ? { file: join(directory, this.#identitiesFile), key } : null,
      parent: parent?.save ?? null,
    };
  }

  async describe(
    directory: string,
    bytes: number,
    saved: SavedRam,
    signal?: AbortSignal,
  ): Promise<StoredRam> {
    const hash = (file: string) => hashFile(directory, file, signal);
    return {
      form: this.isLayered ? 'layered' : 'full',
      file: this.#file,
      bytes,
      storedBytes: saved.dataBytes,
      ...readChunkChecksums(saved),
      identities: canIdentifyPages ? await hash(this.#identitiesFile) : null,
      places: this.isLayered ? await hash(this.#placesFile) : null,
      layers: this.isLayered ? this.#layers(saved) : [],
    };
  }

  /** Only those that have pages. */
  #layers({ layerPages, fileBytes }: SavedRam): StoredLayer[] {
    const own: StoredLayer = { number: 1, snapshot: null, file: this.#file, bytes: fileBytes };
    return [own, ...(this.#options.parent?.layers ?? [])].filter(({ number }) => layerPages[number - 1]! > 0);
  }

  get #identitiesFile(): string {
    return `${this.#file}.identities`;
  }

  get #placesFile(): string {
    return `${this.#file}.places`;
  }
}

import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';

/** sun_path of a Unix socket has room for 107 characters (unix(7)); file names beyond this are shortened. */
const longestFileName = 32;

/** Devices that many may open at once without meeting. */
const sharedDevices = new Set(['/dev/null', '/dev/zero', '/dev/stdout', '/dev/stderr']);

/**
 * Gives each file that a VM writes, and each socket that it listens on, a place in a directory of the VM's copy.
 * Invariant: one path always gets the same place, two paths never do.
 */
export class OwnPlaces {
  readonly #directory: string;
  readonly #places = new Map<string, string>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** @returns null for a device of the host's, which cannot be had twice */
  placeOf(path: string): string | null {
    if (sharedDevices.has(path)) return path;
    if (path.startsWith('/dev/')) return null;
    const known = this.#places.get(path);
    if (known !== undefined) return known;
    const place = join(this.#directory, this.#freeName(path));
    this.#places.set(path, place);
    return place;
  }

  #freeName(path: string): string {
    const name = basename(path);
    const taken = [...this.#places.values()].some((place) => basename(place) === name);
    if (!taken && name.length <= longestFileName) return name;
    const digest = createHash('sha256').update(path).digest('hex').slice(0, 12);
    return `${name.slice(0, longestFileName - 13)}-${digest}`;
  }
}

import { fileURLToPath } from 'node:url';

/** A C program of this folder's neighbour `guest`, compiled and put beside the bundle of suites. */
export function guestProgram(name: string): string {
  return fileURLToPath(new URL(`./${name}`, import.meta.url));
}

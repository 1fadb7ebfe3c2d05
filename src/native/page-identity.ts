import { loadAddon } from './addon.ts';

interface IdentityAddon {
  readonly canIdentifyPages: boolean;
  identifyPage(key: Uint8Array, page: Uint8Array): Buffer;
}

const addon = loadAddon() as IdentityAddon;

export const pageBytes = 4096;
export const identityKeyBytes = 16;

/** A file of identities begins with this, the key behind it; the identities begin at `identitiesHeaderBytes`. */
export const identitiesMagic = Buffer.from('staghorn pages1\0');
export const identitiesHeaderBytes = 4096;

/** Whether this CPU multiplies without carry (PCLMULQDQ). */
export const { canIdentifyPages } = addon;

/** 128 bits that tell pages apart for everybody who does not know the key (native/ram/page-identity.h). */
export function identifyPage(key: Uint8Array, page: Uint8Array): Buffer {
  if (key.length !== identityKeyBytes || page.length !== pageBytes) {
    throw new RangeError('a key of 16 bytes and a page of 4096 are needed');
  }
  return addon.identifyPage(key, page);
}

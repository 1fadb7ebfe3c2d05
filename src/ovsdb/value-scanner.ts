import { OvsdbError } from './errors.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/**
 * Finds where JSON objects end that follow each other without delimiters (RFC 7047, section 4). It counts braces
 * and brackets outside strings and looks at each byte once; whether an object is well-formed is the parser's to say.
 */
export class ValueScanner {
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** Whether an object has begun and not ended. */
  get inside(): boolean {
    return this.#depth > 0;
  }

  /**
   * The index of the first byte of the next object, or the chunk's length if there is only white space.
   * @throws OvsdbError 'protocol' if anything but white space stands between two objects.
   */
  findStart(chunk: Uint8Array, from: number): number {
    for (let index = from; index < chunk.length; index += 1) {
      const byte = chunk[index];
      if (byte === OPEN_BRACE) return index;
      if (byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d) {
        throw new OvsdbError(
          'protocol',
          `byte 0x${byte?.toString(16) ?? ''} stands where a message must begin`,
        );
      }
    }
    return chunk.length;
  }

  /** The index behind the object's last byte, or −1 if it does not end in this chunk. Starts at its first brace. */
  findEnd(chunk: Uint8Array, from: number): number {
    for (let index = from; index < chunk.length; index += 1) {
      this.#step(chunk[index] as number);
      if (this.#depth === 0) return index + 1;
    }
    return -1;
  }

  #step(byte: number): void {
    if (this.#escaped) this.#escaped = false;
    else if (this.#inString) {
      if (byte === QUOTE) this.#inString = false;
      else if (byte === BACKSLASH) this.#escaped = true;
    } else if (byte === QUOTE) this.#inString = true;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) this.#depth += 1;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) this.#depth -= 1;
  }
}

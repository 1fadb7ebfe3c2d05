/** A message of a text/event-stream (WHATWG HTML, section 9.2). */
export interface SseMessage {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

/** Turns text, however it is cut, into the messages of an event stream. Throws on a message above the limit. */
export class SseDecoder {
  readonly #maxMessageBytes: number;
  #rest = '';
  #id = '';
  #event = '';
  #data: string[] = [];
  #size = 0;

  constructor({ maxMessageBytes }: { maxMessageBytes: number }) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  push(text: string): SseMessage[] {
    const messages: SseMessage[] = [];
    this.#rest += text;
    // A carriage return at the very end may be half of a line end.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      this.#size += line.length;
      this.#refuseAboveLimit(this.#size);
      if (line === '') messages.push(...this.#dispatch());
      else this.#field(line);
    }
    this.#refuseAboveLimit(this.#size + this.#rest.length);
    return messages;
  }

  #field(line: string): void {
    const [, name = '', value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#event = value;
    else if (name === 'id') this.#id = value;
  }

  #dispatch(): SseMessage[] {
    const data = this.#data;
    const message = { id: this.#id, event: this.#event || 'message', data: data.join('\n') };
    this.#data = [];
    this.#event = '';
    this.#size = 0;
    return data.length === 0 ? [] : [message];
  }

  #refuseAboveLimit(size: number): void {
    if (size > this.#maxMessageBytes)
      throw new RangeError(`an event is longer than ${this.#maxMessageBytes} bytes`);
  }
}

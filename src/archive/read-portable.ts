import { StaghornError } from '../errors/index.ts';
import { decompressZstd } from '../native/zstd-stream.ts';
import { archiveHeadMaxBytes, archiveHeadName, parseHead, type ArchiveHead } from './portable.ts';
import { tarEnd, TarDecoder, tarHeader, tarPadding, type TarEvent, type TarFile } from './tar.ts';

/**
 * Reads a portable archive as it comes: the head, then one part after the other, each as a tar archive of its own.
 * Parts come in the order that the head names, without anything between them.
 */
export class PortableReader {
  readonly head: ArchiveHead;
  readonly #events: AsyncGenerator<TarEvent, void, undefined>;
  /** The entry of the next part that was met at the end of the last one. */
  #next: TarFile | null = null;

  private constructor(head: ArchiveHead, events: AsyncGenerator<TarEvent, void, undefined>) {
    this.head = head;
    this.#events = events;
  }

  /** @throws StaghornError 'snapshot-damaged' or 'snapshot-unfit' */
  static async open(compressed: AsyncIterable<Uint8Array>): Promise<PortableReader> {
    const events = eventsOf(compressed);
    try {
      return new PortableReader(parseHead(await readHead(events)), events);
    } catch (error) {
      await events.return();
      throw error;
    }
  }

  /** The entries of the part of a host, without the host's name. To be read to its end. */
  async *part(host: string): AsyncGenerator<Buffer, void, undefined> {
    const prefix = `${host}/`;
    if (this.#next === null) await this.#advance();
    while (this.#next?.name.startsWith(prefix) === true) {
      const { name, bytes }: TarFile = this.#next;
      yield tarHeader({ name: name.slice(prefix.length), bytes });
      yield* this.#content();
      yield tarPadding(bytes);
      await this.#advance();
    }
    yield tarEnd;
  }

  /** @throws StaghornError 'snapshot-damaged' if something follows that belongs to no part */
  async requireEnd(): Promise<void> {
    if (this.#next === null) await this.#advance();
    if (this.#next !== null)
      throw damaged(`${JSON.stringify(this.#next.name)} belongs to no part, or comes late`);
  }

  async close(): Promise<void> {
    await this.#events.return();
  }

  async *#content(): AsyncGenerator<Buffer, void, undefined> {
    for (;;) {
      const { value } = await this.#events.next();
      if (value?.kind !== 'data') return;
      yield value.data;
    }
  }

  async #advance(): Promise<void> {
    const { value } = await this.#events.next();
    this.#next = value?.kind === 'file' ? value.file : null;
  }
}

async function* eventsOf(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<TarEvent, void, undefined> {
  const decoder = new TarDecoder();
  try {
    for await (const chunk of decompressZstd(compressed)) yield* decoder.push(chunk);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EBADMSG')
      throw new StaghornError('snapshot-damaged', `the archive is damaged: ${error.message}`, {
        cause: error,
      });
    throw error;
  }
  decoder.end();
}

async function readHead(events: AsyncGenerator<TarEvent, void, undefined>): Promise<string> {
  const { value: first } = await events.next();
  if (first?.kind !== 'file' || first.file.name !== archiveHeadName || first.file.bytes > archiveHeadMaxBytes)
    throw damaged(`it does not begin with ${archiveHeadName}`);
  const chunks: Buffer[] = [];
  for (;;) {
    const { value } = await events.next();
    if (value?.kind !== 'data') return Buffer.concat(chunks).toString('utf8');
    chunks.push(value.data);
  }
}

const damaged = (what: string) =>
  new StaghornError('snapshot-damaged', `this is no archive of a snapshot: ${what}`);

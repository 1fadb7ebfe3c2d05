import { Readable } from 'node:stream';
import type { z } from 'zod';

import { messageOf, StaghornError } from '../errors/index.ts';
import { fromProblem } from '../protocol/problem.ts';
import { operationEvent, problem, type OperationEvent } from '../protocol/resources.ts';
import type { Connection } from './connection.ts';
import { SseDecoder } from './sse.ts';

/** An "ended" event carries a whole snapshot: about 300 bytes a VM. */
const MAX_EVENT_BYTES = 16 * 1024 * 1024;

export interface RequestOptions {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** A client of the REST API: errors come as the StaghornError that the server threw. */
export class ApiClient {
  readonly url: string;
  readonly #token: string | null;

  constructor({ url, token }: Connection) {
    this.url = url;
    this.#token = token;
  }

  /** The answer, checked against the schema of the resource. */
  async json<T extends z.ZodType>(method: string, path: string, schema: T, options: RequestOptions = {}) {
    const answer = await this.send(method, path, options);
    return this.#checked(schema, await this.#body(answer.text()));
  }

  async bytes(path: string, mediaType: string): Promise<Buffer> {
    const answer = await this.send('GET', path, { headers: { accept: mediaType } });
    return Buffer.from(await this.#body(answer.arrayBuffer()));
  }

  /** The answer as it comes; it ends with an error if the server could not make all of it. */
  async stream(path: string, mediaType: string): Promise<Readable> {
    const answer = await this.send('GET', path, { headers: { accept: mediaType } });
    return answer.body === null ? Readable.from([]) : Readable.fromWeb(answer.body);
  }

  /** Sends a body as it comes. */
  async upload<T extends z.ZodType>(
    path: string,
    schema: T,
    { content, mediaType }: { content: Readable; mediaType: string },
  ): Promise<z.output<T>> {
    const answer = await this.#exchange(
      new Request(`${this.url}${path}`, {
        method: 'POST',
        headers: {
          'content-type': mediaType,
          ...(this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }),
        },
        body: Readable.toWeb(content) as NonNullable<RequestInit['body']>,
        duplex: 'half',
      }),
    );
    return this.#checked(schema, await this.#body(answer.text()));
  }

  /** The events of an operation after `afterId`, until the server ends the stream. */
  async *events(
    id: string,
    { afterId, signal }: { afterId: number; signal: AbortSignal },
  ): AsyncGenerator<OperationEvent> {
    const headers = { accept: 'text/event-stream', 'last-event-id': String(afterId) };
    const answer = await this.send('GET', `/v1/operations/${encodeURIComponent(id)}/events`, {
      headers,
      signal,
    });
    const decoder = new SseDecoder({ maxMessageBytes: MAX_EVENT_BYTES });
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    while (true) {
      const part = await this.#body(reader?.read() ?? Promise.resolve(undefined));
      if (part?.value === undefined) return;
      for (const { event, data } of decoder.push(part.value)) {
        if (event === 'error') throw fromProblem(this.#checked(problem, data));
        yield this.#checked(operationEvent, data);
      }
    }
  }

  async send(
    method: string,
    path: string,
    { body, headers = {}, signal }: RequestOptions = {},
  ): Promise<Response> {
    const request = new Request(`${this.url}${path}`, {
      method,
      headers: {
        ...headers,
        ...(this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
    return this.#exchange(request);
  }

  async #exchange(request: Request): Promise<Response> {
    const answer = await fetch(request).catch((error: unknown) => {
      throw this.#unreachable(error, 'no Staghorn server answers at');
    });
    if (answer.ok) return answer;
    throw this.#refusal(answer.status, await this.#body(answer.text()));
  }

  #refusal(status: number, text: string): StaghornError {
    const told = problem.safeParse(parseJson(text));
    if (told.success) return fromProblem(told.data);
    return new StaghornError(
      'protocol-violation',
      `${this.url} answered ${status}, and not as a Staghorn server does`,
    );
  }

  #checked<T extends z.ZodType>(schema: T, text: string): z.output<T> {
    const result = schema.safeParse(parseJson(text));
    if (result.success) return result.data;
    const message = `${this.url} answered with something unknown here; is its version another one?`;
    throw new StaghornError('protocol-violation', message, { cause: result.error });
  }

  async #body<T>(reading: Promise<T>): Promise<T> {
    return reading.catch((error: unknown) => {
      throw this.#unreachable(error, 'the connection broke to the Staghorn server at');
    });
  }

  #unreachable(error: unknown, what: string): StaghornError {
    if (error instanceof Error && error.name === 'AbortError')
      return new StaghornError('cancelled', 'left', { cause: error });
    const cause =
      error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : messageOf(error);
    const message = `${what} ${this.url} (${cause}); start one with "staghorn serve"`;
    return new StaghornError('server-unreachable', message, { cause: error });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

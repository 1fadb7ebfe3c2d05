import type { Message, RequestMessage } from 'vscode-jsonrpc/node.js';

/** One message to one or many sessions. */
export interface Publication {
  readonly slot: number;
  /** Routing keys. */
  readonly targets: readonly string[];
  readonly message: unknown;
}

interface Group {
  readonly index: number;
  readonly slot: number;
  readonly targets: string[];
  readonly id: number | undefined;
  readonly message: object;
}

type Content = Partial<Pick<RequestMessage, 'id' | 'method' | 'params'>>;

/**
 * Collects what the sessions of a controller send within one turn of the event loop, and makes one publication of all
 * that is equal: a step of the barrier with the same parameters for every host leaves as one message.
 * Invariants: the order of messages to one session holds; request ids are the same for all that a publication goes
 * to, and unique over the sessions.
 */
export class Outbox {
  readonly #publish: (publication: Publication) => void;
  readonly #schedule: (flush: () => void) => void;
  #groups: Group[] = [];
  /** By content: the newest group. */
  readonly #newest = new Map<string, number>();
  /** By session: the last group that it is in. */
  readonly #last = new Map<string, number>();
  #lastId = 0;

  constructor(
    publish: (publication: Publication) => void,
    schedule: (flush: () => void) => void = queueMicrotask,
  ) {
    this.#publish = publish;
    this.#schedule = schedule;
  }

  /** @returns the id that a request goes by on the wire */
  add(target: string, slot: number, message: Message): number | undefined {
    const { id, ...rest } = message as Message & Content;
    const content = `${slot} ${id === undefined} ${JSON.stringify(rest)}`;
    const session = `${slot} ${target}`;
    const group = this.#join(content, session) ?? this.#begin(content, slot, rest, id !== undefined);
    this.#last.set(session, group.index);
    group.targets.push(target);
    return group.id;
  }

  #join(content: string, session: string): Group | undefined {
    const index = this.#newest.get(content);
    // A session that is in it already, or in a later one, would get its messages in another order.
    return index === undefined || index <= (this.#last.get(session) ?? -1) ? undefined : this.#groups[index];
  }

  #begin(content: string, slot: number, rest: object, isRequest: boolean): Group {
    if (this.#groups.length === 0) this.#schedule(() => this.#flush());
    const id = isRequest ? (this.#lastId += 1) : undefined;
    const message = id === undefined ? rest : { ...rest, id };
    const group: Group = { index: this.#groups.length, slot, targets: [], id, message };
    this.#newest.set(content, group.index);
    this.#groups.push(group);
    return group;
  }

  #flush(): void {
    const groups = this.#groups;
    this.#groups = [];
    this.#newest.clear();
    this.#last.clear();
    for (const { slot, targets, message } of groups) this.#publish({ slot, targets, message });
  }
}

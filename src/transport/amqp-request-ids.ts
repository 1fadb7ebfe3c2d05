import { Message } from 'vscode-jsonrpc/node.js';

type Id = number | string | null;

/**
 * The ids of one client's requests, as the client counts them and as they go by on the wire, where they are the
 * same for all that one publication goes to.
 */
export class RequestIds {
  readonly #localOf = new Map<Id, Id>();
  readonly #wireOf = new Map<Id, Id>();

  /** A message of the client's, as `send` wants it; what `send` returns is the request's id on the wire. */
  outgoing(message: Message, send: (message: Message) => number | undefined): void {
    if (Message.isRequest(message)) {
      const wire = send(message);
      if (wire === undefined || message.id === null) return;
      this.#localOf.set(wire, message.id);
      this.#wireOf.set(message.id, wire);
    } else {
      send(this.#withWireId(message));
    }
  }

  /** A message of the server's as the client knows it; null for an answer that nobody waits for (any more). */
  incoming(message: Message): Message | null {
    if (!Message.isResponse(message)) return message;
    const local = this.#localOf.get(message.id);
    if (local === undefined) return null;
    this.#localOf.delete(message.id);
    this.#wireOf.delete(local);
    return { ...message, id: local } as Message;
  }

  /** `$/cancelRequest` names a request by its id (Language Server Protocol 3.17, cancellation support). */
  #withWireId(message: Message): Message {
    if (!Message.isNotification(message) || message.method !== '$/cancelRequest') return message;
    const id = (message.params as { readonly id?: Id } | undefined)?.id ?? null;
    return { ...message, params: { id: this.#wireOf.get(id) ?? id } } as Message;
  }
}

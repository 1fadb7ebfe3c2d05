interface Node {
  readonly handle: number;
  readonly parent: number;
}

export type MakingStep<T> = { readonly what: 'qdisc' | 'class'; readonly item: T };

const ROOT = 0xffffffff;
/** The upper half of a class's handle is that of its qdisc (include/uapi/linux/pkt_sched.h, TC_H_MAJ). */
const qdiscOf = (handle: number) => (handle & 0xffff0000) >>> 0;

/**
 * Queueing disciplines and classes in an order in which each can be made: a class after its qdisc and its parent, a
 * qdisc after the class that it hangs on. What hangs on nothing that is there comes last.
 */
export function inMakingOrder<T extends Node>(qdiscs: readonly T[], classes: readonly T[]): MakingStep<T>[] {
  const explicit = new Set(classes.map(({ handle }) => handle));
  const made = new Set<number>([ROOT]);
  const hasParent = ({ parent }: T) =>
    made.has(parent) || (!explicit.has(parent) && made.has(qdiscOf(parent)));
  const isReady = ({ what, item }: MakingStep<T>) =>
    what === 'qdisc' ? hasParent(item) : made.has(qdiscOf(item.handle)) && hasParent(item);
  let waiting: MakingStep<T>[] = [
    ...qdiscs.map((item) => ({ what: 'qdisc' as const, item })),
    ...classes.map((item) => ({ what: 'class' as const, item })),
  ];
  const order: MakingStep<T>[] = [];
  for (let ready = waiting.filter(isReady); ready.length > 0; ready = waiting.filter(isReady)) {
    order.push(...ready);
    for (const { item } of ready) made.add(item.handle);
    waiting = waiting.filter((step) => !ready.includes(step));
  }
  return [...order, ...waiting];
}

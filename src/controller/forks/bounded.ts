/**
 * Does something with each item, `limit` at once at most. When one fails `stop` is aborted, no more are begun, and
 * those under way are waited for. @throws what the first of them threw
 */
export async function inParallel<T>(
  items: readonly T[],
  { limit, stop }: { readonly limit: number; readonly stop: AbortController },
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let place = next++; place < items.length && !stop.signal.aborted; place = next++) {
      await work(items[place]!).catch((error: unknown) => stop.abort(error));
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  stop.signal.throwIfAborted();
}

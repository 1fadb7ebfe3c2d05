/**
 * Does something with each item, `limit` at once at most. When one fails the others are told to stop, and are waited
 * for. @throws what the first of them threw
 */
export async function inParallel<T, R>(
  items: readonly T[],
  { limit, signal }: { readonly limit: number; readonly signal: AbortSignal },
  work: (item: T, place: number, signal: AbortSignal) => Promise<R>,
): Promise<R[]> {
  const stop = new AbortController();
  const together = AbortSignal.any([signal, stop.signal]);
  const results: R[] = [];
  let next = 0;
  let failure: { readonly error: unknown } | null = null;
  const worker = async () => {
    for (let place = next++; place < items.length && !together.aborted; place = next++) {
      try {
        results[place] = await work(items[place]!, place, together);
      } catch (error) {
        failure ??= { error };
        stop.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  if (failure !== null) throw (failure as { error: unknown }).error;
  signal.throwIfAborted();
  return results;
}

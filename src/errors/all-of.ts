/** As Promise.all, but a failure waits for the others too: nothing goes on when it is taken back. */
export async function allOf<const T extends readonly Promise<unknown>[]>(
  works: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  const results = await Promise.allSettled(works);
  const failure = results.find((result) => result.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
  return Promise.all(works);
}

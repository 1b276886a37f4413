// Works through many things a few at a time, those that became urgent first.

/**
 * Calls `work` once for each of `items`, at most `width` at a time, in order, but for `urgent`: what is (or is put) in there goes
 * first. Begins no more once `signal` aborts. Resolves when all that was begun has ended.
 */
export async function inLanes<T>(
  items: Iterable<T>,
  urgent: T[],
  width: number,
  signal: AbortSignal,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = new Set(items)
  const next = (): T | undefined => {
    for (let item = urgent.shift(); item !== undefined; item = urgent.shift()) if (left.delete(item)) return item
    const [first] = left
    if (first !== undefined) left.delete(first)
    return first
  }
  const lane = async (): Promise<void> => {
    while (!signal.aborted) {
      const item = next()
      if (item === undefined) return
      await work(item)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, left.size) }, lane))
}

// Many pieces of work, a few at a time.

/** What becomes of all of them, in their order; those that fail are missing, and reported. */
export async function inGroups<T, R>(
  all: readonly T[],
  atOnce: number,
  work: (one: T) => Promise<R>,
  failed: (one: T, error: unknown) => void,
): Promise<R[]> {
  const results: R[] = []
  for (let first = 0; first < all.length; first += atOnce) {
    const group = all.slice(first, first + atOnce).map(async (one) => {
      try {
        return [await work(one)]
      } catch (error) {
        failed(one, error)
        return []
      }
    })
    results.push(...(await Promise.all(group)).flat())
  }
  return results
}

/** In ranges that ascend and do not overlap, the number of the first that ends behind `at`; their number: none does. */
export function firstBehind(sorted: readonly { readonly end: number }[], at: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] as { end: number }).end <= at) low = middle + 1
    else high = middle
  }
  return low
}

// Names in the order of their UTF-8 bytes, which is what EROFS's binary search expects.

// Only code units from the surrogates on sort differently in UTF-16 and UTF-8.
const HIGH = /[\ud800-\uffff]/

/** Sorts in place and returns `names`. */
export function sortNames(names: string[]): string[] {
  names.sort()
  return names.some((name) => HIGH.test(name)) ? names.sort(compareNames) : names
}

export function compareNames(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

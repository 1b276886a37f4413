// The order of a layer's entries: what a start needs first, so that few large ranges fetch it.
import { Failure } from '../errors.ts'
import { cleanPath, quote } from '../format/path.ts'
import type { SourceEntry } from './source-entry.ts'

export interface Ordered {
  /** The wanted entries with their parents and the files they are links to, in the order wanted. */
  first: SourceEntry[]
  /** All others, as they came. */
  rest: SourceEntry[]
}

/**
 * @param paths what is wanted first; a path's entries keep their order
 * @throws Failure missing (no such entry), usage (an entry with a malformed path)
 */
export async function order(
  entries: Iterable<SourceEntry> | AsyncIterable<SourceEntry>,
  paths: readonly string[],
): Promise<Ordered> {
  const all: SourceEntry[] = []
  const byPath = new Map<string, SourceEntry[]>()
  for await (const each of entries) {
    const entry = clean(each)
    all.push(entry)
    const same = byPath.get(entry.path)
    if (same) same.push(entry)
    else byPath.set(entry.path, [entry])
  }
  const first = new Set<SourceEntry>()
  const want = (path: string, links: number) => {
    const found = byPath.get(path)
    if (!found) return false
    for (let end = 0; path !== '' && end !== -1; end = path.indexOf('/', end + 1)) {
      for (const parent of byPath.get(path.slice(0, end)) ?? []) first.add(parent)
    }
    for (const entry of found) {
      // a chain of links longer than there are entries is a cycle, which the archive cannot express
      if (entry.type === 'hardlink' && links < all.length) want(entry.target ?? '', links + 1)
      first.add(entry)
    }
    return true
  }
  for (const path of paths) {
    if (!want(cleanPath(path, { what: quote(path) }), 0)) {
      throw Failure.missing(`no entry ${quote(path)} to put first`, { fix: 'Name paths that the layer has.' })
    }
  }
  return { first: [...first], rest: all.filter((each) => !first.has(each)) }
}

function clean(entry: SourceEntry): SourceEntry {
  const what = `entry ${quote(entry.path)}`
  const path = cleanPath(entry.path, { what })
  if (entry.type !== 'hardlink') return { ...entry, path }
  return { ...entry, path, target: cleanPath(entry.target ?? '', { what: `${what}: target` }) }
}

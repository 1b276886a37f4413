// What containerd lists snapshots by: `labels."containerd.io/snapshot.ref"==sha256:…,parent=="…"`. Within a filter a comma means and; of
// several filters one must match. Values are bare or quoted as in Go; a field without an operator must be there.
import { Failure } from '../errors.ts'
import { KINDS, type Snapshot } from './snapshot.ts'

export type Match = (snapshot: Snapshot) => boolean

/** What a selector compares, and to what. */
interface Selector {
  path: readonly string[]
  operator: '==' | '!=' | '~=' | undefined
  value: string
}

/** containerd's own are some hundred bytes; a label has at most 4096. */
const FILTER_MAX = 16_384

/** @throws Failure usage */
export function parseFilters(filters: readonly string[]): Match {
  if (filters.length === 0) return () => true
  const all = filters.map(parseFilter)
  return (snapshot) => all.some((each) => each.every((selector) => matches(snapshot, selector)))
}

/** The values that each filter wants a label to have; undefined: some filter wants none. For an index on that label. */
export function wantedLabel(filters: readonly string[], label: string): string[] | undefined {
  const wanted = filters.map((each) =>
    parseFilter(each).find(
      ({ path, operator }) => path.length === 2 && path[0] === 'labels' && path[1] === label && operator === '==',
    ),
  )
  const values = wanted.flatMap((each) => each?.value ?? [])
  return values.length === filters.length && values.length > 0 ? values : undefined
}

// a bare part of a field; a quoted string; an operator; a bare value
const FIELD = /[A-Za-z]\w*/y
const QUOTED = /"(?:[^"\\]|\\.)*"/y
const OPERATOR = /==|!=|~=/y
const VALUE = /[^\s,]+/y

function parseFilter(text: string): Selector[] {
  const refuse = () => Failure.usage(`${JSON.stringify(text.slice(0, 200))} is no filter`)
  if (text.length > FILTER_MAX) throw refuse()
  let at = 0
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at
    const found = pattern.exec(text)?.[0]
    at += found?.length ?? 0
    return found
  }
  const quoted = () => {
    const found = take(QUOTED)
    if (found === undefined) return undefined
    try {
      return String(JSON.parse(found))
    } catch {
      throw refuse()
    }
  }
  const selectors: Selector[] = []
  for (;;) {
    const path: string[] = []
    for (;;) {
      const part = take(FIELD) ?? quoted()
      if (part === undefined) throw refuse()
      path.push(part)
      if (text[at] !== '.') break
      at++
    }
    const operator = take(OPERATOR) as Selector['operator'] // what the pattern takes
    const value = operator === undefined ? '' : (quoted() ?? take(VALUE) ?? '')
    selectors.push({ path, operator, value })
    if (at === text.length) return selectors
    if (text[at++] !== ',') throw refuse()
  }
}

function matches(snapshot: Snapshot, { path, operator, value }: Selector): boolean {
  const found = fieldOf(snapshot, path)
  if (operator === undefined) return found !== undefined && found !== ''
  // a pattern would be the client's own: what it lists by one it looks through itself
  if (operator === '~=') return found !== undefined
  return operator === '==' ? found === value : found !== value
}

function fieldOf(snapshot: Snapshot, [field, ...rest]: readonly string[]): string | undefined {
  if (field === 'labels') return snapshot.labels[rest.join('.')]
  if (rest.length > 0) return undefined
  if (field === 'name') return snapshot.key
  if (field === 'parent') return snapshot.parent
  if (field === 'kind') return KINDS.find((kind) => kind === snapshot.kind)
  return undefined
}

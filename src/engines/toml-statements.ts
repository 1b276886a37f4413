// Where things stand in a TOML text, so that it can be changed without touching anything else: tables, keys and the elements of arrays,
// each with its place. It is no validator: whoever uses it parses the text before and after.
import { parse } from 'smol-toml'
import { Failure } from '../errors.ts'

/** A header `[a.b]`, or `key = value` below one. Places are half open. */
export interface Statement {
  kind: 'table' | 'tables' | 'key'
  /** Of a key, with the table it stands in: `['storage', 'options', 'additionalimagestores']`. */
  path: readonly string[]
  start: number
  /** Behind the header or the value. */
  end: number
  /** Of a key. */
  valueAt: number
}

export interface ArrayPlace {
  /** Behind `[`. */
  open: number
  /** Of `]`. */
  close: number
  elements: readonly { start: number; end: number }[]
  /** Of the comma behind the last element. */
  comma: number | undefined
}

/** Headers and keys in their order. @throws Failure usage: no TOML */
export function statementsOf(text: string): Statement[] {
  const found: Statement[] = []
  let table: readonly string[] = []
  for (let at = skipBlank(text, 0); at < text.length; ) {
    const start = at
    if (text[at] === '[') {
      const double = text.startsWith('[[', at)
      const close = keyEnd(text, at + (double ? 2 : 1), ']')
      table = pathOf(text.slice(at + (double ? 2 : 1), close))
      at = close + (double ? 2 : 1)
      found.push({ kind: double ? 'tables' : 'table', path: table, start, end: at, valueAt: at })
    } else {
      const equals = keyEnd(text, at, '=')
      const path = [...table, ...pathOf(text.slice(at, equals))]
      const valueAt = skipSpaces(text, equals + 1)
      at = valueEnd(text, valueAt)
      found.push({ kind: 'key', path, start, end: at, valueAt })
    }
    at = skipBlank(text, at)
  }
  return found
}

/** The array at `at`. @throws Failure usage: there is none */
export function arrayAt(text: string, at: number): ArrayPlace {
  if (text[at] !== '[') throw noToml(text, at, 'an array')
  const elements: { start: number; end: number }[] = []
  let comma: number | undefined
  for (let next = skipBlank(text, at + 1); ; next = skipBlank(text, next)) {
    if (next >= text.length) throw noToml(text, next, ']')
    if (text[next] === ']') return { open: at + 1, close: next, elements, comma }
    if (text[next] === ',') {
      comma = next
      next++
    } else {
      const end = valueEnd(text, next)
      elements.push({ start: next, end })
      comma = undefined
      next = end
    }
  }
}

/** Behind blanks, line ends and comments. */
function skipBlank(text: string, from: number): number {
  let at = from
  while (at < text.length) {
    if (text[at] === '#') at = lineEnd(text, at)
    else if (' \t\r\n\ufeff'.includes(text[at] as string)) at++
    else break
  }
  return at
}

function skipSpaces(text: string, from: number): number {
  let at = from
  while (text[at] === ' ' || text[at] === '\t') at++
  return at
}

/** Of the line that `at` is in: the place of its line feed. */
export function lineEnd(text: string, at: number): number {
  const end = text.indexOf('\n', at)
  return end < 0 ? text.length : end
}

/** The place of `stop` behind a key, whose quoted parts may hold it. */
function keyEnd(text: string, from: number, stop: ']' | '='): number {
  for (let at = from; at < text.length; ) {
    const character = text[at] as string
    if (character === stop) return at
    if (character === '\n') break
    at = character === '"' || character === "'" ? stringEnd(text, at) : at + 1
  }
  throw noToml(text, from, stop)
}

/** Behind a value: a string, an array, an inline table, or a word. */
function valueEnd(text: string, from: number): number {
  const first = text[from]
  if (first === '"' || first === "'") return stringEnd(text, from)
  if (first === '[' || first === '{') return bracketEnd(text, from)
  let at = from
  while (at < text.length && !',]}#\r\n'.includes(text[at] as string)) at++
  if (at === from) throw noToml(text, from, 'a value')
  return at
}

function bracketEnd(text: string, from: number): number {
  let depth = 0
  for (let at = from; at < text.length; ) {
    const character = text[at] as string
    if (character === '"' || character === "'") at = stringEnd(text, at)
    else if (character === '#') at = lineEnd(text, at)
    else {
      if (character === '[' || character === '{') depth++
      else if (character === ']' || character === '}') depth--
      at++
      if (depth === 0) return at
    }
  }
  throw noToml(text, from, 'its end')
}

/** Behind a string of any of the four kinds. */
function stringEnd(text: string, from: number): number {
  const quote = text[from] as string
  const long = text.startsWith(quote.repeat(3), from)
  const closing = long ? quote.repeat(3) : quote
  for (let at = from + closing.length; at < text.length; at++) {
    if (quote === '"' && text[at] === '\\') at++
    else if (text.startsWith(closing, at)) {
      let end = at + closing.length
      // up to two quotes may stand before the three that close
      while (long && text[end] === quote && end < at + 5) end++
      return end
    } else if (!long && text[at] === '\n') break
  }
  throw noToml(text, from, 'the end of a string')
}

/** The parts of a key; the parser knows all ways to write them. */
function pathOf(key: string): string[] {
  const path: string[] = []
  for (let at: unknown = parse(`${key} = 0`); typeof at === 'object' && at !== null; ) {
    const [name, value] = Object.entries(at)[0] as [string, unknown] // a key has one part at least
    path.push(name)
    at = value
  }
  return path
}

function noToml(text: string, at: number, wanted: string): Failure {
  const line = text.slice(0, at).split('\n').length
  return Failure.usage(`line ${line} is no TOML: ${wanted} is missing`)
}

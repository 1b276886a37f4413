// Sets single values of a TOML file, and takes tables out, leaving every other character as it is. What was done is proven by parsing the
// text before and after.
import { isDeepStrictEqual } from 'node:util'
import { Failure } from '../errors.ts'
import { parseText } from './toml-edit.ts'
import { lineEnd, type Statement, statementsOf } from './toml-statements.ts'

export type TomlValue = string | boolean | readonly string[]

/** `key` of the table with this path of names. */
export interface ValuePlace {
  table: readonly string[]
  key: string
}

/** What stands there; undefined: nothing does. */
export function valueAt(text: string, { table, key }: ValuePlace): unknown {
  let at: unknown = parseText(text)
  for (const name of [...table, key]) {
    if (typeof at !== 'object' || at === null || Array.isArray(at) || !Object.hasOwn(at, name)) return undefined
    at = (at as Record<string, unknown>)[name] // an object that has it
  }
  return at
}

/**
 * The text with this value, in the place of another or new.
 * @throws Failure usage: no TOML; unsupported: written in a way that is not edited
 */
export function setValue(text: string, place: ValuePlace, value: TomlValue): string {
  if (isDeepStrictEqual(valueAt(text, place), value)) return text
  const literal = JSON.stringify(value) // TOML writes strings, arrays of them and booleans alike
  const statements = statementsOf(text)
  const path = [...place.table, place.key]
  const found = statements.find((each) => each.kind === 'key' && isDeepStrictEqual(each.path, path))
  const edited =
    found === undefined
      ? withKey(text, statements, place, literal)
      : text.slice(0, found.valueAt) + literal + text.slice(found.end)
  return proven(text, edited, place, value)
}

/** The text without it. @throws Failure as setValue */
export function unsetValue(text: string, place: ValuePlace): string {
  const path = [...place.table, place.key]
  const found = statementsOf(text).find((each) => each.kind === 'key' && isDeepStrictEqual(each.path, path))
  if (found === undefined) return text
  const start = text.lastIndexOf('\n', found.start) + 1
  return proven(text, text.slice(0, start) + text.slice(lineEnd(text, found.end) + 1), place, undefined)
}

/** A table of an array of tables, `[[a.b]]`, at the end of the text. */
export function appendTable(
  text: string,
  path: readonly string[],
  values: Readonly<Record<string, TomlValue>>,
): string {
  const lines = Object.entries(values).map(([key, value]) => `  ${key} = ${JSON.stringify(value)}\n`)
  const edited = `${ended(text)}\n[[${path.map(nameOf).join('.')}]]\n${lines.join('')}`
  parsed(edited, path)
  return edited
}

/**
 * The text without tables of this path, and those below them.
 * @param isIt told the values of each, by their keys' texts; only of arrays of tables
 */
export function withoutTables(text: string, path: readonly string[], isIt: (values: unknown) => boolean): string {
  const headers = statementsOf(text).filter(({ kind }) => kind !== 'key')
  let edited = text
  for (const [i, header] of [...headers.entries()].reverse()) {
    if (!isDeepStrictEqual(header.path.slice(0, path.length), path)) continue
    const end = headers[i + 1]?.start ?? text.length
    const body = text.slice(header.start, end)
    if (isIt(valuesOf(body, header))) edited = edited.slice(0, header.start) + edited.slice(end)
  }
  parsed(edited, path)
  return edited
}

function valuesOf(body: string, { path, end, start }: Statement): unknown {
  return { path, ...parseText(body.slice(end - start)) }
}

function withKey(text: string, statements: readonly Statement[], { table, key }: ValuePlace, literal: string): string {
  const line = `${nameOf(key)} = ${literal}\n`
  if (table.length === 0) {
    const first = statements.find(({ kind }) => kind !== 'key')
    return first === undefined ? ended(text) + line : `${text.slice(0, first.start)}${line}\n${text.slice(first.start)}`
  }
  const header = statements.find((each) => each.kind === 'table' && isDeepStrictEqual(each.path, table))
  if (header === undefined) return `${ended(text)}\n[${table.map(nameOf).join('.')}]\n  ${line}`
  const at = lineEnd(text, header.end)
  return at === text.length ? `${text}\n  ${line}` : `${text.slice(0, at + 1)}  ${line}${text.slice(at + 1)}`
}

function ended(text: string): string {
  return text === '' || text.endsWith('\n') ? text : `${text}\n`
}

function nameOf(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key)
}

/** That the value is there and nothing else is different, but for tables that are empty without it. */
function proven(text: string, edited: string, place: ValuePlace, value: TomlValue | undefined): string {
  const [before, after] = [parseText(text), parsed(edited, place.table)]
  if (!isDeepStrictEqual(valueAt(edited, place), value)) throw notEdited(place.table)
  // the parser's objects have no prototype
  const others = (of: Record<string, unknown>) => structuredClone(without(of, place))
  if (!isDeepStrictEqual(others(before), others(after))) throw notEdited(place.table)
  return edited
}

function without(of: Record<string, unknown>, { table, key }: ValuePlace): Record<string, unknown> {
  const [first, ...rest] = [...table, key]
  if (first === undefined || !Object.hasOwn(of, first)) return of
  const { [first]: inner, ...others } = of
  if (rest.length === 0) return others
  if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return of
  const left = without(inner as Record<string, unknown>, { table: rest.slice(0, -1), key: rest.at(-1) as string }) // an object
  return Object.keys(left).length === 0 ? others : { ...others, [first]: left }
}

function parsed(edited: string, path: readonly string[]): Record<string, unknown> {
  try {
    return parseText(edited)
  } catch {
    throw notEdited(path)
  }
}

function notEdited(path: readonly string[]): Failure {
  return Failure.unsupported(`[${path.map(nameOf).join('.')}] is written in a way that is not edited automatically`, {
    fix: 'Edit it by hand, as docs/containerd.md has it.',
  })
}

// Adds strings to arrays of a TOML file, and takes them out again, leaving every other character as it is: comments, order, blanks.
import { isDeepStrictEqual } from 'node:util'
import { parse, TomlError } from 'smol-toml'
import { Failure } from '../errors.ts'
import { type ArrayPlace, arrayAt, lineEnd, type Statement, statementsOf } from './toml-statements.ts'

type Table = Record<string, unknown>

/** `table` is a path of names; `strings` are wanted in the array, or unwanted, `key` of it. */
export interface Wanted {
  table: readonly string[]
  key: string
  strings: readonly string[]
}

/**
 * The text with the strings at the end of the array, which is made where it is missing; those that are there already stay where they are.
 * @throws Failure usage (no TOML, or the key holds something else), unsupported (written in a way that is not edited)
 */
export function addStrings(text: string, wanted: Wanted): string {
  const missing = wanted.strings.filter((each) => !stringsAt(parseText(text), wanted).includes(each))
  if (missing.length === 0) return text
  const literal = missing.map((each) => JSON.stringify(each)) // a JSON string is a TOML basic string
  const statements = statementsOf(text)
  const array = arrayOf(text, statements, wanted)
  const edited = array === undefined ? withNewKey(text, statements, wanted, literal) : withMore(text, array, literal)
  return proven(text, edited, wanted, (before) => [...before, ...missing])
}

/**
 * The text without the strings. The key goes, too, when it is left empty and `keepEmpty` is false.
 * @throws Failure as addStrings
 */
export function removeStrings(text: string, wanted: Wanted, keepEmpty: boolean): string {
  let edited = text
  for (;;) {
    const strings = stringsAt(parseText(edited), wanted)
    const index = strings.findIndex((each) => wanted.strings.includes(each))
    if (index < 0) break
    const statements = statementsOf(edited)
    const array = arrayOf(edited, statements, wanted)
    if (array === undefined) throw notEdited(wanted)
    const key = statements.find((each) => isKey(each, wanted)) as Statement // what the array is the value of
    edited =
      strings.length === 1 && !keepEmpty
        ? withoutLines(edited, key.start, key.end)
        : withoutElement(edited, array, index)
  }
  return proven(text, edited, wanted, (before) => before.filter((each) => !wanted.strings.includes(each)))
}

/** The strings of the array; [] where there is none. @throws Failure usage: something else is there */
export function stringsAt(parsed: Table, { table, key }: Pick<Wanted, 'table' | 'key'>): string[] {
  let at: unknown = parsed
  for (const name of [...table, key]) {
    if (at === undefined) return []
    if (typeof at !== 'object' || at === null || Array.isArray(at)) throw otherwise(table, key)
    at = Object.hasOwn(at, name) ? (at as Table)[name] : undefined // an object that is no array
  }
  if (at === undefined) return []
  if (!Array.isArray(at) || !at.every((each) => typeof each === 'string')) throw otherwise(table, key)
  return at
}

/** @throws Failure usage */
export function parseText(text: string): Table {
  try {
    return parse(text)
  } catch (cause) {
    const why = cause instanceof TomlError ? `line ${cause.line}: ${cause.message.split('\n')[0]}` : String(cause) // the rest quotes it
    throw Failure.usage('it is no TOML', { why, cause })
  }
}

function isKey({ kind, path }: Statement, { table, key }: Pick<Wanted, 'table' | 'key'>): boolean {
  return kind === 'key' && isDeepStrictEqual(path, [...table, key])
}

function arrayOf(text: string, statements: readonly Statement[], wanted: Wanted): ArrayPlace | undefined {
  const key = statements.find((each) => isKey(each, wanted))
  return key === undefined ? undefined : arrayAt(text, key.valueAt)
}

function withMore(text: string, { open, elements, comma }: ArrayPlace, literal: readonly string[]): string {
  const last = elements.at(-1)
  const lines = text.includes('\r\n') ? '\r\n' : '\n'
  if (last === undefined) {
    // an empty array over several lines stays one
    const indented = isLineEnd(text, open) ? literal.map((each) => `${lines}  ${each},`).join('') : literal.join(', ')
    return insert(text, open, indented)
  }
  const behind = comma === undefined ? last.end : comma + 1
  const end = lineEnd(text, behind)
  const lineStart = text.lastIndexOf('\n', last.start) + 1
  const indent = /^[ \t]*/.exec(text.slice(lineStart, last.start))?.[0] ?? ''
  // a line of its own, as the last element has: behind whatever comment follows that one
  if (lineStart + indent.length === last.start && isRestOfLine(text.slice(behind, end))) {
    const lineFeed = text[end - 1] === '\r' ? end - 1 : end
    const added = literal.map((each) => `${lines}${indent}${each}`).join(',')
    const before = comma === undefined ? insert(text, last.end, ',') : text
    const at = comma === undefined ? lineFeed + 1 : lineFeed
    return insert(before, at, comma === undefined ? added : `${added},`)
  }
  return insert(text, last.end, literal.map((each) => `, ${each}`).join(''))
}

const isRestOfLine = (text: string) => /^[ \t]*(#.*)?\r?$/.test(text)
const isLineEnd = (text: string, at: number) => isRestOfLine(text.slice(at, lineEnd(text, at)))

function withNewKey(
  text: string,
  statements: readonly Statement[],
  wanted: Wanted,
  literal: readonly string[],
): string {
  const lines = text.includes('\r\n') ? '\r\n' : '\n'
  const line = `${wanted.key} = [${literal.join(', ')}]`
  const header = statements.find((each) => each.kind === 'table' && isDeepStrictEqual(each.path, wanted.table))
  if (header === undefined) {
    const gap = text === '' || text.endsWith('\n\n') ? '' : text.endsWith('\n') ? lines : lines + lines
    return `${text}${gap}[${wanted.table.join('.')}]${lines}${line}${lines}`
  }
  const end = lineEnd(text, header.end)
  return end === text.length ? `${text}${lines}${line}${lines}` : insert(text, end + 1, `${line}${lines}`)
}

function withoutElement(text: string, { elements, comma }: ArrayPlace, index: number): string {
  const { start, end } = elements[index] as { start: number; end: number } // found by its index
  const next = elements[index + 1]
  const previous = elements[index - 1]
  const behind = next === undefined ? (comma === undefined ? end : comma + 1) : text.indexOf(',', end) + 1
  const lineStart = text.lastIndexOf('\n', start) + 1
  const alone =
    /^[ \t]*$/.test(text.slice(lineStart, start)) && /^[ \t]*\r?$/.test(text.slice(behind, lineEnd(text, behind)))
  if (alone && lineStart > 0) return withoutLines(text, start, behind)
  if (next !== undefined) return text.slice(0, start) + text.slice(next.start)
  return previous === undefined
    ? text.slice(0, start) + text.slice(behind)
    : text.slice(0, previous.end) + text.slice(end)
}

/** Without the lines from the one with `start` to the one with `end`. */
function withoutLines(text: string, start: number, end: number): string {
  return text.slice(0, text.lastIndexOf('\n', start) + 1) + text.slice(lineEnd(text, end) + 1)
}

const insert = (text: string, at: number, what: string) => text.slice(0, at) + what + text.slice(at)

/** The edited text, if parsing it shows that the array and nothing else is different. @throws Failure unsupported */
function proven(text: string, edited: string, wanted: Wanted, change: (before: string[]) => string[]): string {
  const [want, got] = [parseText(text), reparsed(edited, wanted)]
  const strings = change(stringsAt(want, wanted))
  if (!isDeepStrictEqual(stringsAt(got, wanted), strings)) throw notEdited(wanted)
  if (!isDeepStrictEqual(without(want, wanted), without(got, wanted))) throw notEdited(wanted)
  return edited
}

function reparsed(edited: string, wanted: Wanted): Table {
  try {
    return parse(edited)
  } catch (cause) {
    throw notEdited(wanted, cause)
  }
}

/** Less the key, and less tables that are empty without it. */
function without(parsed: Table, { table, key }: Wanted): Table {
  const chain = [parsed]
  for (const name of table) {
    const next = chain.at(-1)?.[name]
    if (typeof next !== 'object' || next === null) return parsed
    chain.push(next as Table) // an object
  }
  delete chain.at(-1)?.[key]
  for (let depth = table.length; depth > 0; depth--) {
    const name = table[depth - 1] as string
    const [at, parent] = [chain[depth], chain[depth - 1]] as [Table, Table] // as many tables as names, and the whole
    if (Object.keys(at).length === 0) delete parent[name]
  }
  return parsed
}

function notEdited({ table, key, strings }: Wanted, cause?: unknown): Failure {
  return Failure.unsupported(`[${table.join('.')}] is written in a way that is not edited automatically`, {
    ...(cause === undefined ? {} : { cause }),
    fix: `Edit ${key} by hand; these are the strings: ${strings.map((each) => JSON.stringify(each)).join(', ')}.`,
  })
}

function otherwise(table: readonly string[], key: string): Failure {
  return Failure.usage(`${[...table, key].join('.')} is no list of strings`)
}

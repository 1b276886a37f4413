// JSON as security files and signed payloads need it: a key may stand only once in an object, and nothing is corrected in silence.
// JSON.parse keeps the last of two keys, where another reader may keep the first: then both read another thing below one signature.
import { Failure } from '../errors.ts'

export type StrictJson = null | boolean | number | string | readonly StrictJson[] | StrictObject
export type StrictObject = ReadonlyMap<string, StrictJson>

/** A policy nests six deep, a payload three. */
const DEPTH_MAX = 32
// RFC 8259: white space, then punctuation, a string (JSON.parse looks into it), a number or a word
const TOKEN =
  /[ \t\n\r]*(?:([{}[\]:,])|("(?:[^"\\]|\\.)*")|(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(true|false|null))/y

/** `what` names the document in messages. @throws Failure corrupt */
export function parseStrictJson(bytes: Uint8Array, what: string): StrictJson {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw Failure.corrupt(`${what} is no UTF-8`, { cause })
  }
  const tokens = new Tokens(text, what)
  const found = value(tokens, tokens.next(), 0)
  tokens.end()
  return found
}

class Tokens {
  readonly #text: string
  readonly #what: string
  readonly #pattern = new RegExp(TOKEN)

  constructor(text: string, what: string) {
    this.#text = text
    this.#what = what
  }

  next(): string {
    const match = this.#pattern.exec(this.#text)
    if (match === null) throw this.wrong('is no JSON')
    return match[1] ?? match[2] ?? match[3] ?? match[4] ?? ''
  }

  scalar(token: string): null | boolean | number | string {
    try {
      return JSON.parse(token)
    } catch {
      throw this.wrong('is no JSON')
    }
  }

  end(): void {
    if (/[^ \t\n\r]/.test(this.#text.slice(this.#pattern.lastIndex))) throw this.wrong('goes on behind its end')
  }

  wrong(how: string): Failure {
    return Failure.corrupt(`${this.#what} ${how}`)
  }
}

function value(tokens: Tokens, token: string, depth: number): StrictJson {
  if (depth > DEPTH_MAX) throw tokens.wrong(`is nested more than ${DEPTH_MAX} deep`)
  if (token === '{') return object(tokens, depth)
  if (token === '[') return list(tokens, depth)
  if (/^[}\]:,]$/.test(token)) throw tokens.wrong('is no JSON')
  return tokens.scalar(token)
}

function object(tokens: Tokens, depth: number): StrictObject {
  const found = new Map<string, StrictJson>()
  let token = tokens.next()
  if (token === '}') return found
  for (;;) {
    const key = tokens.scalar(token)
    if (typeof key !== 'string') throw tokens.wrong('is no JSON')
    if (found.has(key)) throw tokens.wrong(`has the key ${JSON.stringify(key)} twice in one object`)
    if (tokens.next() !== ':') throw tokens.wrong('is no JSON')
    found.set(key, value(tokens, tokens.next(), depth + 1))
    const next = tokens.next()
    if (next === '}') return found
    if (next !== ',') throw tokens.wrong('is no JSON')
    token = tokens.next()
  }
}

function list(tokens: Tokens, depth: number): StrictJson[] {
  const found: StrictJson[] = []
  let token = tokens.next()
  if (token === ']') return found
  for (;;) {
    found.push(value(tokens, token, depth + 1))
    const next = tokens.next()
    if (next === ']') return found
    if (next !== ',') throw tokens.wrong('is no JSON')
    token = tokens.next()
  }
}

/** @throws Failure corrupt: no object */
export function asObject(value: StrictJson | undefined, what: string): StrictObject {
  if (value instanceof Map) return value
  throw Failure.corrupt(`${what} is no JSON object`)
}

/** @throws Failure corrupt: no list */
export function asList(value: StrictJson | undefined, what: string): readonly StrictJson[] {
  if (Array.isArray(value)) return value
  throw Failure.corrupt(`${what} is no list`)
}

/** @throws Failure corrupt: no text */
export function asText(value: StrictJson | undefined, what: string): string {
  if (typeof value === 'string') return value
  throw Failure.corrupt(`${what} is no text`)
}

/** An object with all of the `required` keys, perhaps some `optional` ones, and no other. @throws Failure corrupt */
export function asRecord(
  value: StrictJson | undefined,
  what: string,
  required: readonly string[],
  optional: readonly string[] = [],
): StrictObject {
  const found = asObject(value, what)
  for (const key of required) {
    if (!found.has(key)) throw Failure.corrupt(`${what} lacks ${JSON.stringify(key)}`)
  }
  for (const key of found.keys()) {
    if (!required.includes(key) && !optional.includes(key)) {
      throw Failure.corrupt(`${what} has the unknown key ${JSON.stringify(key)}`)
    }
  }
  return found
}

/** Standard base64 with its padding; line breaks are skipped. @throws Failure corrupt */
export function fromBase64(text: string, what: string): Uint8Array {
  const plain = text.replace(/[\r\n]/g, '')
  if (plain.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(plain)) throw Failure.corrupt(`${what} is no base64`)
  return new Uint8Array(Buffer.from(plain, 'base64'))
}

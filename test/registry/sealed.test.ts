import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Credentials } from '../../src/registry/login.ts'
import { SealedCredentials, type SealedFiles } from '../../src/registry/sealed.ts'

const ADA = { username: 'ada', password: 'hunter2' }
const SECRET = randomBytes(32)

/** A folder in memory. */
class Shelf implements SealedFiles {
  readonly files = new Map<string, Uint8Array>()
  readonly aside: string[] = []
  broken = false

  #check(): void {
    if (this.broken) throw Failure.system('no space is left')
  }

  async read(name: string) {
    this.#check()
    return this.files.get(name)
  }

  async write(name: string, bytes: Uint8Array) {
    this.#check()
    this.files.set(name, bytes)
  }

  async remove(name: string) {
    this.#check()
    this.files.delete(name)
  }

  async setAside(name: string) {
    this.aside.push(name)
    this.files.delete(name)
  }
}

function open(shelf: Shelf, secret: Uint8Array = SECRET) {
  const warnings: string[] = []
  return { sealed: new SealedCredentials(secret, shelf, (message) => warnings.push(message)), warnings }
}

test('what is sealed is opened by the next process with the same key, for that repository only', async () => {
  const shelf = new Shelf()
  const values: Credentials[] = [ADA, { identityToken: 'x'.repeat(5000) }, { username: 'ü', password: '' }]
  for (const value of values) {
    await open(shelf).sealed.keep('r.example.com', 'a/b', value)
    const { sealed, warnings } = open(shelf)
    expect(await sealed.find('r.example.com', 'a/b')).toEqual(value)
    expect(await sealed.find('r.example.com', 'a')).toBeUndefined()
    expect(await sealed.find('r.example.com:443', 'a/b')).toBeUndefined()
    expect(warnings).toEqual([])
  }
  expect(shelf.files.size).toBe(1)
})

test('a file tells neither what it holds nor of whom, nor twice the same', async () => {
  const shelf = new Shelf()
  const { sealed } = open(shelf)
  const seen: string[] = []
  const lengths = new Set<number>()
  for (const password of ['hunter2', 'hunter2', 'a much longer hunter2']) {
    await sealed.keep('r.example.com', 'team/app', { username: 'ada', password })
    for (const [name, bytes] of shelf.files) {
      seen.push(name, Buffer.from(bytes).toString('latin1'))
      lengths.add(bytes.length)
    }
  }
  for (const word of ['hunter2', 'ada', 'example', 'team', 'password']) expect(seen.join()).not.toContain(word)
  expect(new Set(seen.filter((_, i) => i % 2 === 1)).size).toBe(3)
  expect(lengths.size).toBe(1)
})

test('a file that was moved, changed, cut or sealed by another key is set aside with a warning, and opens nothing', async () => {
  const shelf = new Shelf()
  const { sealed, warnings } = open(shelf)
  await sealed.keep('r.example.com', 'theirs', { identityToken: 'theirs' })
  const [theirs] = shelf.files.values()
  shelf.files.clear()
  await sealed.keep('r.example.com', 'ours', ADA)
  const [[name, bytes] = ['', new Uint8Array()]] = shelf.files
  const check = async (damaged: Uint8Array, what: string) => {
    shelf.files.set(name, damaged)
    warnings.length = 0
    expect(await sealed.find('r.example.com', 'ours'), what).toBeUndefined()
    expect(shelf.files.has(name), what).toBe(false)
    expect(warnings, what).toEqual([expect.stringContaining('set aside')])
  }
  await check(theirs as Uint8Array, 'another repository’s')
  for (let at = 0; at < bytes.length; at += 7) {
    const flipped = Uint8Array.from(bytes)
    flipped[at] = (flipped[at] ?? 0) ^ 1
    await check(flipped, `bit ${at}`)
  }
  for (let length = 0; length < bytes.length; length += 13) await check(bytes.subarray(0, length), `length ${length}`)
  await check(Buffer.concat([bytes, bytes.subarray(0, 1)]), 'longer')
  shelf.files.set(name, bytes)
  expect(await sealed.find('r.example.com', 'ours')).toEqual(ADA)
  // another key asks for other names, so it sees nothing at all
  expect(await open(shelf, randomBytes(32)).sealed.find('r.example.com', 'ours')).toBeUndefined()
  expect(shelf.files.size).toBe(1)
})

test('the last one told stays, and what is forgotten is gone', async () => {
  const shelf = new Shelf()
  const { sealed } = open(shelf)
  const told = ['one', 'two', 'three'].map((identityToken) => sealed.keep('r.example.com', 'a', { identityToken }))
  expect(await sealed.find('r.example.com', 'a')).toEqual({ identityToken: 'three' })
  await Promise.all(told)
  await sealed.forget('r.example.com', 'a')
  expect(shelf.files.size).toBe(0)
  expect(await sealed.find('r.example.com', 'a')).toBeUndefined()
})

test('a disk that fails costs a warning without a secret in it, and nothing else', async () => {
  const shelf = new Shelf()
  const { sealed, warnings } = open(shelf)
  shelf.broken = true
  await sealed.keep('r.example.com', 'a', ADA)
  expect(await sealed.find('r.example.com', 'a')).toBeUndefined()
  await sealed.forget('r.example.com', 'a')
  expect(warnings).toHaveLength(3)
  for (const each of warnings) expect(each).toMatch(/no space is left/)
  expect(warnings.join()).not.toMatch(/hunter2|ada/)
  shelf.broken = false
  await sealed.keep('r.example.com', 'a', ADA)
  expect(await sealed.find('r.example.com', 'a')).toEqual(ADA)
})

test('a key that could be guessed is refused', () => {
  expect(() => open(new Shelf(), randomBytes(31))).toThrow(expect.objectContaining({ code: 'usage' }))
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { estargz } from '../../src/format/estargz/estargz.ts'
import type { Contents } from '../../src/format/format.ts'
import { runs } from '../fixtures/runs.ts'
import { expectWellFormed } from '../soak/well-formed.ts'
import { tocEntry } from './arbitrary.ts'
import { blobOf, FILES_END, indexOf, layerOf, parseEntries, SOME_DIGEST } from './craft.ts'
import { MemoryBlob, sourceOf } from './memory-blob.ts'
import { parseZstdEntries, parseZstdJson } from './zstd-chunked/zstd-craft.ts'

/** What every parser promises, and that this one's chunks lie one behind the other and are checked as a whole. */
function holds(contents: Contents): void {
  expectWellFormed(contents)
  let end = 0
  for (const { stored, size, checks } of contents.chunks) {
    expect(stored.start).toBeGreaterThanOrEqual(end)
    end = stored.end
    let checked = 0
    for (const { range } of checks) {
      expect(range.start).toBeGreaterThanOrEqual(checked)
      checked = range.end
    }
    expect(checked).toBe(size)
  }
}

function onlyFailures(parse: () => Contents): boolean {
  let contents: Contents
  try {
    contents = parse()
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    return false
  }
  holds(contents)
  return true
}

test.each([
  ['eStargz', parseEntries],
  ['zstd:chunked', parseZstdEntries],
])('random tables of %s give either a Failure or contents that keep every promise', (_, parse) => {
  let accepted = 0
  fc.assert(
    fc.property(fc.array(tocEntry, { maxLength: 6 }), (entries) => {
      if (onlyFailures(() => parse(entries))) accepted++
    }),
    { numRuns: runs(800) },
  )
  // else the property would hold of a parser that refuses everything
  expect(accepted).toBeGreaterThan(runs(25))
})

/** A valid table: files of several chunks and files that share members. */
const valid = fc
  .array(fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 4 }), { maxLength: 8 })
  .map((members) => {
    let offset = 20
    return members.flatMap((sizes, i): object[] => {
      const common = { chunkDigest: SOME_DIGEST }
      if (i % 2 === 0) {
        // one file, a chunk a member
        const size = sizes.reduce((sum, each) => sum + each)
        let at = 0
        return sizes.map((length, j) => {
          const piece = {
            ...common,
            name: `f${i}`,
            type: j === 0 ? 'reg' : 'chunk',
            size,
            offset,
            chunkOffset: at,
            chunkSize: length,
          }
          at += length
          offset += 7
          return piece
        })
      }
      let inner = 0
      const files = sizes.map((size, j) => {
        const file = { ...common, name: `g${i}-${j}`, type: 'reg', size, offset, innerOffset: inner }
        inner += size + 512
        return file
      })
      offset += 7
      return files
    })
  })

test('valid tables are accepted', () => {
  fc.assert(fc.property(valid, (entries) => holds(parseEntries(entries))))
  fc.assert(fc.property(valid, (entries) => holds(parseZstdEntries(entries))))
})

test('tables with flipped bytes give either a Failure or contents that keep every promise', () => {
  fc.assert(
    fc.property(
      valid,
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      (entries, flips) => {
        const json = new TextEncoder().encode(JSON.stringify({ version: 1, entries }))
        for (const [at, byte] of flips) json[at % json.length] = byte
        onlyFailures(() => estargz.parseIndex(indexOf(json), layerOf(json)))
        onlyFailures(() => parseZstdJson(json))
      },
    ),
    { numRuns: runs(600) },
  )
})

test('blobs with flipped bytes in table and footer give either a Failure or the right index, in two reads at most', async () => {
  const json = new TextEncoder().encode(
    `{"version":1,"entries":[${'{"name":"d","type":"dir"},'.repeat(99)}{"name":"e","type":"dir"}]}`,
  )
  const good = blobOf(json)
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer({ min: FILES_END, max: good.length - 1 }), fc.integer({ min: 0, max: 255 })), {
        minLength: 1,
        maxLength: 3,
      }),
      fc.integer({ min: 0, max: 40 }),
      async (flips, cut) => {
        const bytes = Uint8Array.from(good.subarray(0, good.length - Math.max(0, cut - 30)))
        for (const [at, byte] of flips) bytes[at % bytes.length] = byte
        const blob = new MemoryBlob(bytes)
        try {
          const index = await estargz.readIndex(layerOf(json, bytes.length), sourceOf(blob))
          expect(Buffer.from(index.subarray(16)).equals(json)).toBe(true)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
        expect(blob.ranges.length).toBeLessThanOrEqual(2)
      },
    ),
    { numRuns: runs(200) },
  )
})

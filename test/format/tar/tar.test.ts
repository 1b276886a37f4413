import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { formatNamed, planUnits } from '../../../src/format/formats.ts'
import { PIECE_BYTES, parseTarIndex } from '../../../src/format/tar/tar-index.ts'
import { digestOf } from '../../../src/image/digest.ts'
import { buildTree } from '../../../src/tree/build.ts'
import { CHUNK_MAX_BYTES, NONE } from '../../../src/tree/chunk.ts'
import { ErofsReader } from '../../../src/tree/erofs-reader.ts'
import { LAYER_DIGEST } from '../craft.ts'
import { archive, header, LAYER, member, pax, scan } from './tar-craft.ts'

test('no layer is a lazy one for being a tar', () => {
  expect(() => formatNamed('tar')).toThrow(expect.objectContaining({ code: 'unsupported' }))
  expect(
    planUnits({ layers: [{ ...LAYER.shown, annotations: {} }] })
      .values()
      .next().value,
  ).toHaveProperty('why')
})

describe('the index of a tar', () => {
  const large = Buffer.alloc(2 * PIECE_BYTES + 100, 'large')
  const bytes = archive(
    header({ name: 'd/', type: '5' }),
    pax([
      ['mtime', '1700000000.123456789'],
      ['SCHILY.xattr.user.__proto__', Buffer.from([0, 0xff])],
    ]),
    member({ name: 'd/small' }, 'small'),
    member({ name: 'large' }, large),
    header({ name: 'hard', type: '1', linkName: 'd/small' }),
    header({ name: 'empty' }),
  )

  test('has the uncompressed tar for its blob, and its pieces for chunks, each with its digest', async () => {
    const { contents, diffId, entries } = await scan(bytes, 99_999)
    expect(contents.blobs).toEqual([{ digest: diffId, size: bytes.length }])
    expect(contents.first).toEqual([])
    expect(PIECE_BYTES).toBeLessThan(CHUNK_MAX_BYTES)
    expect(contents.chunks.map(({ size }) => size)).toEqual([5, PIECE_BYTES, PIECE_BYTES, 100])
    for (const { blob, stored, size, codec, checks } of contents.chunks) {
      expect({ blob, codec, length: stored.end - stored.start }).toEqual({ blob: 0, codec: NONE, length: size })
      const digest = digestOf(bytes.subarray(stored.start, stored.end))
      expect(checks).toEqual([{ of: 'decoded', range: { start: 0, end: size }, digest }])
    }
    const extents = entries.find(({ path }) => path === 'large')?.extents ?? []
    const read = extents.map(({ chunk }) => {
      const { start, end } = contents.chunks[chunk]?.stored ?? { start: 0, end: 0 }
      return bytes.subarray(start, end)
    })
    expect(Buffer.concat(read).equals(large)).toBe(true)
  })

  test('makes a tree', async () => {
    const { contents } = await scan(bytes, 99_999)
    const tree = buildTree(contents)
    const reader = new ErofsReader(tree.image)
    const small = reader.resolve('d/small') as number
    expect(reader.attributes(small)).toMatchObject({ mtime: 1700000000123456789n, nlink: 2, size: 5 })
    expect(reader.resolve('hard')).toBe(small)
    expect([...reader.xattrs(small)]).toEqual([['user.__proto__', Uint8Array.from([0, 0xff])]])
  })

  test('that is damaged is refused', async () => {
    const text = Buffer.from((await scan(bytes, 99_999)).index).toString()
    const check = (from: string | RegExp, to: string) => {
      const damaged = text.replace(from, to)
      expect(damaged).not.toBe(text)
      let failure: unknown
      try {
        parseTarIndex(Buffer.from(damaged), `layer ${LAYER_DIGEST}`)
      } catch (error) {
        failure = error
      }
      expect(failure, damaged.slice(0, 300)).toBeInstanceOf(Failure)
      expect((failure as Failure).message).toContain(`layer ${LAYER_DIGEST}`)
    }
    check(/^.*$/s, '')
    check(/\n$/, '')
    check(/^/, '[\n')
    check(/^/, 'null\n')
    check('"diffId":"sha256:', '"diffId":"sha512:')
    check(/"tarSize":\d+/, '"tarSize":1024')
    check(/"tarSize":\d+/, '"tarSize":-1')
    check('"name":"large"', '"name":"../large"')
    check('"name":"large"', '"name":7')
    check('"size":5', '"size":4194305')
    check('"size":5', '"size":0.5')
    check('"size":5', '"size":0,"size":9007199254740993')
    check(/"mtime":"\d+"/, '"mtime":1')
    check(/"mtime":"\d+"/, `"mtime":"${'1'.repeat(40)}"`)
    check(/"pieces":\["sha256:[0-9a-f]{64}"\]/, '"pieces":["x"]')
    check(/"pieces":\["sha256:[0-9a-f]{64}"\]/, '"pieces":{}')
    check(/"offset":\d+/, '"offset":99999999999')
    check('"link":"d/small"', '"link":""')
    check('AP8=', '!')
  })
})

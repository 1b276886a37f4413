import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { type StoredChunk, ZSTD } from '../../src/tree/chunk.ts'
import { growTree } from '../../src/tree/entries.ts'
import { type Extent, ZEROS } from '../../src/tree/entry.ts'
import { layOut } from '../../src/tree/layout.ts'

/** What keeps read-ahead of what is wanted first from what comes behind. */
const GAP = 2 << 20

const digest = (name: string) => digestOf(new TextEncoder().encode(name))

/** A chunk of `size` bytes whose checks are [start, end, name of the bytes]; by default one of all bytes. */
function chunk(name: string, size: number, checks: [number, number, string][] = [[0, size, name]]): StoredChunk {
  return {
    blob: 0,
    stored: { start: 0, end: 10 },
    size,
    codec: ZSTD,
    checks: checks.map(([start, end, of]) => ({ of: 'decoded', range: { start, end }, digest: digest(of) })),
  }
}

/** Files by their extents [chunk, offset, length], one behind the other. */
function lay(chunks: StoredChunk[], files: Record<string, [number, number, number][]>, first: number[] = []) {
  const entries = Object.entries(files).map(([path, pieces]) => {
    let at = 0
    const extents: Extent[] = pieces.map(([chunk, offset, length]) => {
      const extent = { at, chunk, offset, length }
      at += length
      return extent
    })
    return { path, mode: 0o100644, uid: 0, gid: 0, mtime: 0n, size: at, extents }
  })
  return layOut(chunks, first, growTree(entries).files)
}

/** `name: from+length@at …` a chunk, names by the first check. */
function shown(of: ReturnType<typeof layOut>, names: string[]): string[] {
  return of.chunks.map(({ checks, places }) => {
    const name = names.find((each) => digest(each) === checks[0]?.digest)
    return `${name}: ${places.map(({ from, length, at }) => `${from}+${length}@${at}`).join(' ')}`
  })
}

describe('files lie on the device', () => {
  test('each in its own blocks, in the order of the index', () => {
    const laid = lay([chunk('a', 1), chunk('b', 4096), chunk('c', 4097)], {
      x: [[0, 0, 1]],
      y: [[1, 0, 4096]],
      z: [[2, 0, 4097]],
    })
    expect(laid.offsets).toEqual([0, 4096, 8192])
    expect(laid.deviceSize).toBe(16384)
    expect(shown(laid, ['a', 'b', 'c'])).toEqual(['a: 0+1@0', 'b: 0+4096@4096', 'c: 0+4097@8192'])
    expect(laid.first).toBe(0)
  })

  test('those of the wanted chunks first, in that order', () => {
    const chunks = ['a', 'b', 'c', 'd', 'e'].map((name) => chunk(name, 10))
    const laid = lay(
      chunks,
      {
        a: [[0, 0, 10]],
        b: [[1, 0, 10]],
        cd: [
          [2, 0, 10],
          [3, 0, 10],
        ],
        e: [[4, 0, 10]],
      },
      [4, 3, 4],
    ) // prettier-ignore
    expect(laid.offsets).toEqual([GAP + 8192, GAP + 12288, 4096, 0])
    // d is wanted, c only lies before it
    expect(shown(laid, ['a', 'b', 'c', 'd', 'e'])).toEqual([
      'e: 0+10@0',
      'd: 0+10@4106',
      'c: 0+10@4096',
      `a: 0+10@${GAP + 8192}`,
      `b: 0+10@${GAP + 12288}`,
    ]) // prettier-ignore
    expect(laid.first).toBe(2)
  })

  test('with what is wanted first, but not those that only share a piece of it', () => {
    const chunks = ['own', 'shared', 'other'].map((name) => chunk(name, 10))
    const laid = lay(
      chunks,
      {
        other: [
          [1, 0, 10],
          [2, 0, 10],
        ],
        wanted: [
          [0, 0, 10],
          [1, 0, 10],
        ],
      },
      [0, 1],
    )
    expect(laid.offsets).toEqual([GAP + 4096, 0])
    expect(shown(laid, ['own', 'shared', 'other'])).toEqual([
      'own: 0+10@0',
      `shared: 0+10@10 0+10@${GAP + 4096}`,
      `other: 0+10@${GAP + 4106}`,
    ])
  })

  test('several of one chunk, its places by where they begin in it', () => {
    const shared = chunk('', 30, [
      [0, 10, 'p'],
      [10, 30, 'q'],
    ])
    const laid = lay([shared], { late: [[0, 10, 20]], early: [[0, 0, 10]] })
    expect(shown(laid, ['p'])).toEqual(['p: 0+10@4096 10+20@0'])
  })

  test('a part of a checked range', () => {
    const laid = lay([chunk('a', 100)], { x: [[0, 20, 30]], y: [[0, 50, 50]] })
    expect(shown(laid, ['a'])).toEqual(['a: 20+30@0 50+50@4096'])
  })

  test('a chunk that no file uses is dropped, also from the wanted ones', () => {
    const laid = lay([chunk('a', 1), chunk('b', 1)], { x: [[1, 0, 1]] }, [0, 1])
    expect(shown(laid, ['a', 'b'])).toEqual(['b: 0+1@0'])
    expect(laid.first).toBe(1)
  })

  test('a file that a later entry replaced takes no room', () => {
    const of = (chunk: number) => ({
      path: 'x',
      mode: 0o100644,
      uid: 0,
      gid: 0,
      mtime: 0n,
      size: 5,
      extents: [{ at: 0, chunk, offset: 0, length: 5 }],
    })
    const laid = layOut([chunk('a', 5), chunk('b', 5)], [], growTree([of(0), of(1)]).files)
    expect(shown(laid, ['a', 'b'])).toEqual(['b: 0+5@0'])
    expect(laid.deviceSize).toBe(4096)
  })

  test('no files are an empty device', () => {
    expect(lay([chunk('a', 1)], {}, [0])).toEqual({ chunks: [], first: 0, offsets: [], zeros: [], deviceSize: 0 })
  })
})

describe('zeros that no chunk holds', () => {
  test('take room on the device and nothing else', () => {
    const laid = lay([chunk('a', 10), chunk('b', 10)], {
      x: [
        [0, 0, 10],
        [ZEROS, 0, 8192],
        [1, 0, 10],
      ],
      y: [[ZEROS, 0, 4096]],
      z: [[1, 0, 10]],
    }) // prettier-ignore
    expect(laid.offsets).toEqual([0, 12288, 16384])
    expect(shown(laid, ['a', 'b'])).toEqual(['a: 0+10@0', 'b: 0+10@8202 0+10@16384'])
    expect(laid.zeros).toEqual([
      { start: 10, end: 8202 },
      { start: 12288, end: 16384 },
    ])
    expect(laid.deviceSize).toBe(20480)
  })

  test('are a content like any other: as many are the same, more or elsewhere are not', () => {
    const laid = lay([chunk('a', 10)], {
      x: [[ZEROS, 0, 10]],
      y: [[ZEROS, 0, 11]],
      z: [[ZEROS, 0, 10]],
      before: [[ZEROS, 0, 10], [0, 0, 10]],
      behind: [[0, 0, 10], [ZEROS, 0, 10]],
    }) // biome-ignore format: a table
    expect(laid.offsets).toEqual([0, 4096, 0, 8192, 12288])
    expect(laid.zeros.map(({ start }) => start)).toEqual([0, 4096, 8192, 12298])
  })

  test('count as pieces', () => {
    const many = Array.from({ length: 4000 }, (): [number, number, number] => [ZEROS, 0, 1])
    const files = Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`f${i}`, many]))
    expect(() => lay([], files)).toThrow(expect.objectContaining({ code: 'limit' }))
  })
})

describe('the same bytes are kept once', () => {
  test('whole files, whatever chunk they are in', () => {
    const laid = lay([chunk('a', 5), chunk('b', 5), chunk('a', 5)], { x: [[0, 0, 5]], y: [[1, 0, 5]], z: [[2, 0, 5]] })
    expect(laid.offsets).toEqual([0, 4096, 0])
    expect(shown(laid, ['a', 'b'])).toEqual(['a: 0+5@0', 'b: 0+5@4096'])
  })

  test('a file in a shared chunk and one alone', () => {
    const shared = chunk('', 15, [
      [0, 5, 'a'],
      [5, 15, 'b'],
    ])
    const laid = lay([shared, chunk('b', 10)], { x: [[0, 0, 5]], y: [[0, 5, 10]], z: [[1, 0, 10]] })
    expect(laid.offsets).toEqual([0, 4096, 4096])
    expect(laid.chunks).toHaveLength(1)
  })

  test('a chunk that two different files share is fetched once', () => {
    const laid = lay([chunk('a', 4096), chunk('b', 1), chunk('a', 4096), chunk('c', 1)], {
      x: [
        [0, 0, 4096],
        [1, 0, 1],
      ], // prettier-ignore
      y: [
        [2, 0, 4096],
        [3, 0, 1],
      ], // prettier-ignore
    })
    expect(shown(laid, ['a', 'b', 'c'])).toEqual(['a: 0+4096@0 0+4096@8192', 'b: 0+1@4096', 'c: 0+1@12288'])
  })

  test('a wanted duplicate makes its twin wanted', () => {
    const laid = lay(
      [chunk('a', 1), chunk('b', 1), chunk('b', 1)],
      { x: [[0, 0, 1]], y: [[1, 0, 1]], z: [[2, 0, 1]] },
      [2],
    ) // prettier-ignore
    expect(laid.offsets).toEqual([GAP + 4096, 0, 0])
    expect(shown(laid, ['a', 'b'])).toEqual(['b: 0+1@0', `a: 0+1@${GAP + 4096}`])
  })

  test('the same digest of another number of bytes is another content', () => {
    const laid = lay([chunk('a', 5), chunk('a', 6)], { x: [[0, 0, 5]], y: [[1, 0, 6]] })
    expect(laid.offsets).toEqual([0, 4096])
    expect(laid.chunks).toHaveLength(2)
  })

  test('other parts of the same checked range are other contents', () => {
    const laid = lay([chunk('a', 100)], { x: [[0, 0, 10]], y: [[0, 10, 10]], z: [[0, 0, 10]] })
    expect(laid.offsets).toEqual([0, 4096, 0])
  })

  test('chunks without any check are never taken for each other', () => {
    const bare = chunk('', 5, [])
    expect(() => lay([bare, bare], { x: [[0, 0, 5]] })).toThrow(/no digest covers byte 0 of chunk 0/)
    expect(lay([bare, bare, chunk('a', 1)], { x: [[2, 0, 1]] }, [0, 1]).first).toBe(0)
  })
})

describe('refused', () => {
  const a = chunk('a', 10)
  const file = (size: number, extents: Extent[]) =>
    growTree([{ path: 'f', mode: 0o100644, uid: 0, gid: 0, mtime: 0n, size, extents }]).files
  const at = (at: number, length: number, offset = 0, chunk = 0): Extent => ({ at, chunk, offset, length })

  const cases: [string, StoredChunk[], number, Extent[], RegExp][] = [
    ['no contents', [a], 10, [], /"f": has 10 bytes, its contents 0/],
    ['contents that end early', [a], 11, [at(0, 10)], /has 11 bytes, its contents 10/],
    ['contents that end late', [a], 9, [at(0, 10)], /has 9 bytes, its contents 10/],
    ['a gap', [a], 10, [at(0, 4), at(5, 5)], /contents at 4 are missing or overlap/],
    ['an overlap', [a], 10, [at(0, 6), at(5, 5)], /contents at 6 are missing or overlap/],
    ['a late start', [a], 10, [at(1, 9)], /contents at 0/],
    ['an empty piece', [a], 10, [at(0, 0), at(0, 10)], /a piece of 0 bytes/],
    ['a negative piece', [a], 10, [at(0, -1)], /a piece of -1 bytes/],
    ['half a byte', [a], 10, [at(0, 0.5)], /a piece of 0.5 bytes/],
    ['a chunk that is not there', [a], 10, [at(0, 10, 0, 1)], /chunk 1 does not exist/],
    ['a negative chunk', [a], 10, [at(0, 10, 0, -2)], /chunk -2 does not exist/],
    ['no zeros', [a], 10, [at(0, 10), at(10, 0, 0, ZEROS)], /a piece of 0 bytes/],
    ['zeros over contents', [a], 20, [at(0, 10), at(9, 11, 0, ZEROS)], /contents at 10 are missing or overlap/],
    ['zeros that end early', [a], 20, [at(0, 10), at(10, 9, 0, ZEROS)], /has 20 bytes, its contents 19/],
    ['bytes behind the chunk', [a], 10, [at(0, 10, 1)], /chunk 0 has 10 bytes, not 10 at 1/],
    ['bytes before the chunk', [a], 10, [at(0, 10, -1)], /not 10 at -1/],
    ['bytes that no digest covers', [chunk('', 10, [[0, 9, 'a']])], 10, [at(0, 10)], /no digest covers byte 9/],
    [
      'bytes between digests',
      [
        chunk('', 10, [
          [0, 4, 'a'],
          [5, 10, 'b'],
        ]),
      ],
      10,
      [at(0, 10)],
      /covers byte 4/,
    ], // prettier-ignore
    ['bytes before any digest', [chunk('', 10, [[5, 10, 'b']])], 10, [at(0, 10)], /covers byte 0/],
    ['a digest behind the chunk', [chunk('', 10, [[0, 11, 'b']])], 10, [at(0, 10)], /bytes 0 to 11 of 10/],
    ['a digest of nothing', [chunk('', 10, [[3, 3, 'b']])], 10, [at(0, 10)], /bytes 3 to 3 of 10/],
  ]
  for (const [title, chunks, size, extents, message] of cases) {
    test(title, () => {
      expect(() => layOut(chunks, [], file(size, extents))).toThrow(message)
      expect(() => layOut(chunks, [], file(size, extents))).toThrow(expect.objectContaining({ code: 'corrupt' }))
    })
  }

  test('bytes that only a digest of stored bytes covers', () => {
    const stored: StoredChunk = { ...a, checks: [{ of: 'stored', range: { start: 0, end: 10 }, digest: digest('a') }] }
    expect(() => layOut([stored], [], file(10, [at(0, 10)]))).toThrow(/no digest covers byte 0/)
  })

  test('a wanted chunk that is not there', () => {
    for (const number of [1, -1, 0.5]) expect(() => layOut([a], [number], [])).toThrow(/does not exist/)
  })

  test('more bytes than block numbers reach', () => {
    const size = 2 ** 43
    const chunks = ['a', 'b', 'c'].map((name) => chunk(name, size))
    const files = { x: [[0, 0, size]], y: [[1, 0, size]] } as Record<string, [number, number, number][]>
    // two such files end at 2^32 blocks, and the last block number means a hole
    expect(() => lay(chunks, files)).toThrow(expect.objectContaining({ code: 'limit' }))
    expect(lay(chunks, { x: [[0, 0, size]] }).deviceSize).toBe(size)
  })

  test('an index that makes checking expensive', () => {
    const checks = Array.from({ length: 10_000 }, (_, i): [number, number, string] => [i, i + 1, 'a'])
    const files = Object.fromEntries(Array.from({ length: 401 }, (_, i) => [`f${i}`, [[0, 0, 10_000]]]))
    expect(() => lay([chunk('', 10_000, checks)], files as never)).toThrow(expect.objectContaining({ code: 'limit' }))
  })
})

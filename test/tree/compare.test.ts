// A lazily served tree against the tree of the tar.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Range } from '../../src/image/blob.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { buildTree } from '../../src/tree/build.ts'
import { type Check, GZIP, type StoredChunk } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import { firstDifference, type Side } from '../../src/tree/compare.ts'
import { ZEROS } from '../../src/tree/entry.ts'
import { INODE, NID_BYTES } from '../../src/tree/erofs-format.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { runs } from '../fixtures/runs.ts'
import { SAMPLES, sampleLayers } from '../format/samples.ts'
import { specs } from './arbitrary.ts'
import { bothSides, difference, plain, scanned, served, type TarSide } from './compare-sides.ts'
import { edges } from './edges.ts'
import { dir, fifo, file, layer, link, MTIME, type Spec, symlink } from './layer.ts'

const BIG = new Uint8Array(25_000).map((_, i) => i * 7 + (i >> 8))
const xattr = (value: string) => ({ xattrs: new Map([['user.a', Buffer.from(value)]]) })

const base: readonly Spec[] = [
  dir('', { mode: 0o40711 }),
  dir('d'),
  file('d/big', BIG),
  file('d/a', 'alpha'),
  file('d/b', 'bravo'),
  file('d/same', 'alpha'),
  file('d/empty', ''),
  link('d/link', 'd/b'),
  symlink('d/sym', 'target'),
  fifo('d/pipe'),
  { ...fifo('d/dev'), mode: 0o020666, rdev: [1, 3] },
  file('d/x', 'x', xattr('1')),
  dir('opaque'),
  file('opaque/.wh..wh..opq'),
  file('opaque/.wh.gone'),
  file('opaque/deep/er/file', 'deep'),
]

/** `base`, with the entry `path` changed, or others in its place. */
function changed(path: string, to: Partial<Spec> | Spec[]): Spec[] {
  return base.flatMap((each) => (each.path !== path ? [each] : Array.isArray(to) ? to : [{ ...each, ...to }]))
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = bytes.slice()
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

const mutations: [string, Spec[], RegExp][] = [
  ['a bit in the middle of a file', changed('d/big', { bytes: flipped(BIG, 12_345) }), /^"d\/big": contents differ/],
  ['the first bit', changed('d/big', { bytes: flipped(BIG, 0) }), /^"d\/big": contents differ/],
  ['the last bit', changed('d/big', { bytes: flipped(BIG, 24_999) }), /^"d\/big": contents differ/],
  ['a file of those with equal contents', changed('d/same', { bytes: 'alphb' }), /^"d\/(a|same)": contents differ/],
  ['a missing file', changed('d/a', []), /^"d\/a": /],
  ['a missing last file', changed('opaque/deep/er/file', []), /^"opaque\/deep": /],
  ['one file more', [...base, file('d/c', 'c')], /^"d\/c": /],
  ['a last file more', [...base, file('zzz', 'z')], /^"zzz": /],
  ['another name', changed('d/a', { path: 'd/A' }), /^"d\/[aA]": /],
  ['an empty directory', [...base, dir('d/new')], /^"d\/new": .*directory/],
  ['an xattr more', changed('d/a', xattr('1')), /^"d\/a": .*xattr "user.a"/],
  ['an xattr less', changed('d/x', { xattrs: new Map() }), /^"d\/x": .*xattr "user.a"/],
  ['the value of an xattr', changed('d/x', xattr('2')), /^"d\/x": the xattr "user.a" has another value/],
  ['an xattr of the root', changed('', xattr('2')), /^"\/": .*xattr/],
  ['a mode', changed('d/a', { mode: 0o100600 }), /^"d\/a": mode 0(644|600)/],
  ['a setuid bit', changed('d/a', { mode: 0o104644 }), /^"d\/a": mode 0(4)?644/],
  ['the mode of the root', changed('', { mode: 0o40755 }), /^"\/": mode/],
  ['a type', changed('d/pipe', { mode: 0o140600 }), /^"d\/pipe": a (fifo|socket)/],
  ['a symlink for a file', changed('d/a', [symlink('d/a', 'b')]), /^"d\/a": a (file|symlink)/],
  ['an owner', changed('d/a', { uid: 1 }), /^"d\/a": uid [01]/],
  ['a group', changed('d/sym', { gid: 7 }), /^"d\/sym": gid [07]/],
  ['a time, a nanosecond later', changed('d/a', { mtime: MTIME + 1n }), /^"d\/a": mtime/],
  ['a time, a second later', changed('d', { mtime: MTIME + 1_000_000_000n }), /^"d": mtime/],
  ['a target', changed('d/sym', { target: 'targeu' }), /^"d\/sym": target/],
  ['a device', changed('d/dev', { rdev: [1, 4] }), /^"d\/dev": device 1:/],
  ['a whiteout for a device', changed('d/dev', { rdev: [0, 0] }), /^"d\/dev": a (whiteout|character device)/],
  ['a copy for a hard link', changed('d/link', [file('d/link', 'bravo')]), /^"d\/link": a hard link to "d\/b"/],
  ['a hard link to an equal file', changed('d/link', [link('d/link', 'd/a')]), /^"d\/link": /],
  ['a hard link for a copy', changed('d/same', [link('d/same', 'd/a')]), /^"d\/same": a hard link to "d\/a"/],
  ['a whiteout', changed('opaque/.wh.gone', []), /^"opaque\/gone": .*whiteout/],
  ['an opaque directory', changed('opaque/.wh..wh..opq', []), /^"opaque": .*xattr "trusted.overlay.opaque"/],
  ['a size', changed('d/a', { bytes: 'alphaa' }), /^"d\/a": size [56]/],
  ['an empty file', changed('d/a', { bytes: '' }), /^"d\/a": size [05]/],
  [
    'swapped contents of equal size',
    base.map((each) =>
      each.path === 'd/a' ? { ...each, bytes: 'bravo' } : each.path === 'd/b' ? { ...each, bytes: 'alpha' } : each,
    ),
    /^"d\/(a|b|same)": contents differ/,
  ],
]

describe('each difference is found, whichever side has it', () => {
  for (const [what, mutated, message] of mutations) {
    // with pieces alike, and with pieces for which the tar has no digest
    for (const chunkBytes of [10_000, 200]) {
      test(`${what}, chunks of ${chunkBytes}`, async () => {
        expect(await difference(served(mutated), plain(base, chunkBytes))).toMatch(message)
        expect(await difference(served(base, chunkBytes), plain(mutated))).toMatch(message)
      })
    }
  }
})

describe('a tree is the same as itself', () => {
  for (const [what, of] of [['all kinds', () => base] as const, ...edges]) {
    test(what, async () => {
      expect(await difference(served(of()), plain(of()))).toBeUndefined()
    })
  }

  test('cut into other pieces', async () => {
    for (const [lazy, tar] of [
      [10_000, 7000],
      [7000, 10_000],
      [25_000, 3],
      [3, 25_000],
    ]) {
      expect(await difference(served(base, lazy), plain(base, tar))).toBeUndefined()
    }
  })
})

describe('what is read of the tar', () => {
  test('nothing for pieces that the tar has a digest of', async () => {
    const tar = plain(base)
    expect(await difference(served(base), tar)).toBeUndefined()
    expect(await difference(served(changed('d/a', { mtime: 0n })), tar)).toMatch(/mtime/)
    expect(tar.ranges).toEqual([])
  })

  test('each byte once for pieces that it cuts otherwise', async () => {
    const tar = plain([file('f', BIG)], 10_000)
    expect(await difference(served([file('f', BIG)], 7000), tar)).toBeUndefined()
    expect(tar.ranges.reduce((sum, { start, end }) => sum + end - start, 0)).toBe(BIG.length)
  })

  test('no more than 1 MiB at once', async () => {
    const bytes = new Uint8Array(3_000_000).fill(5)
    const tar = plain([file('f', bytes)], 1_600_000)
    expect(await difference(served([file('f', bytes)], 3_000_000), tar)).toBeUndefined()
    expect(Math.max(...tar.ranges.map(({ start, end }) => end - start))).toBe(1 << 20)
  })

  test('a tar that is too short is an error, no verdict', async () => {
    const tar = plain([file('f', BIG)], 10_000)
    tar.bytes = tar.bytes.subarray(0, 20_000)
    await expect(difference(served([file('f', BIG)], 7000), tar)).rejects.toMatchObject({ code: 'corrupt' })
  })

  test('nothing after the caller gave up', async () => {
    const tar = plain([file('f', BIG)], 10_000)
    const options = { signal: AbortSignal.abort() }
    await expect(difference(served([file('f', BIG)], 7000), tar, options)).rejects.toMatchObject({ code: 'aborted' })
    expect(tar.ranges).toEqual([])
  })

  test('by a promise as well', async () => {
    const tar = plain([file('f', BIG)], 10_000)
    const read = async ({ start, end }: { start: number; end: number }) => tar.bytes.subarray(start, end)
    expect(await firstDifference(served([file('f', BIG)], 7000), tar, read)).toBeUndefined()
  })
})

describe('times in whole seconds', () => {
  const SECOND = 1_000_000_000n
  async function check(lazy: bigint, tar: bigint, same: boolean) {
    const found = await difference(served([file('f', 'x', { mtime: lazy })]), plain([file('f', 'x', { mtime: tar })]))
    if (same) expect(found).toBeUndefined()
    else expect(found).toMatch(/^"f": mtime/)
  }

  test('are equal to what rounds to them, halves upwards', async () => {
    await check(2n * SECOND, 2n * SECOND, true)
    await check(2n * SECOND, 2n * SECOND + SECOND / 2n - 1n, true)
    await check(2n * SECOND, 2n * SECOND + SECOND / 2n, false)
    await check(3n * SECOND, 2n * SECOND + SECOND / 2n, true)
    await check(3n * SECOND, 2n * SECOND + SECOND / 2n - 1n, false)
    await check(-2n * SECOND, -2n * SECOND - SECOND / 2n, true)
    await check(-2n * SECOND, -2n * SECOND - SECOND / 2n - 1n, false)
  })

  test('are left out in the first second', async () => {
    await check(0n, SECOND - 1n, true)
    await check(0n, SECOND, false)
    await check(0n, -SECOND / 2n, true)
    await check(0n, -SECOND / 2n - 1n, false)
    await check(0n, -1n, true)
  })

  test('and only where what is served has no fraction', async () => {
    await check(2n * SECOND + 1n, 2n * SECOND, false)
    await check(1n, 0n, false)
  })
})

/** Files that lie in one chunk of `bytes`, with `checks` as [start, end, of]. */
function shared(
  files: readonly { path: string; offset: number; length: number }[],
  bytes: Uint8Array,
  checks: readonly [number, number, Check['of']?][],
): Side {
  const chunk: StoredChunk = {
    blob: 0,
    stored: { start: 0, end: 100 },
    size: bytes.length,
    codec: GZIP,
    checks: checks.map(([start, end, of = 'decoded']) => ({
      of,
      range: { start, end },
      digest: digestOf(bytes.subarray(start, end)),
    })),
  }
  const entries = files.map(({ path, offset, length }) => {
    const { bytes: _, ...entry } = file(path)
    const extents = [{ at: 0, chunk: 0, offset, length }]
    return { mode: 0o100644, uid: 0, gid: 0, mtime: MTIME, ...entry, size: length, extents }
  })
  return buildTree({ blobs: [{ digest: digestOf(bytes), size: 100 }], chunks: [chunk], entries, first: [] })
}

describe('a chunk that several files share', () => {
  const bytes = new TextEncoder().encode('alphabravo')
  const a = { path: 'a', offset: 0, length: 5 }
  const b = { path: 'b', offset: 5, length: 5 }
  const tar = (first: string, second: string) => plain([file('a', first), file('b', second)])

  test('with a digest a file', async () => {
    const lazy = () => shared([a, b], bytes, [[0, 5], [5, 10]]) // biome-ignore format: a table
    expect(await difference(lazy(), tar('alpha', 'bravo'))).toBeUndefined()
    expect(await difference(lazy(), tar('alpha', 'brave'))).toMatch(/^"b": contents differ: sha256/)
    expect(await difference(lazy(), tar('bravo', 'alpha'))).toMatch(/^"a": contents differ/)
  })

  test('with one digest for all of it', async () => {
    const lazy = () => shared([a, b], bytes, [[0, 10]])
    expect(await difference(lazy(), tar('alpha', 'bravo'))).toBeUndefined()
    expect(await difference(lazy(), tar('alpha', 'brave'))).toMatch(/^"a", "b": contents differ \(they share a chunk\)/)
    expect(await difference(lazy(), tar('alphb', 'bravo'))).toMatch(/^"a", "b": contents differ/)
  })

  test('cannot be compared where its digest covers bytes of no file', async () => {
    const lazy = shared([a], bytes, [[0, 10]])
    expect(await difference(lazy, plain([file('a', 'alpha')]))).toMatch(/^"a": cannot be compared: .*no file's/)
    const behind = shared([b], bytes, [[0, 10]])
    expect(await difference(behind, plain([file('b', 'bravo')]))).toMatch(/^"b": cannot be compared: .*no file's/)
  })

  test('is none where a digest is of bytes that nobody reads', async () => {
    const lazy = shared([b], bytes, [[0, 5], [5, 10]]) // biome-ignore format: a table
    expect(await difference(lazy, plain([file('b', 'bravo')]))).toBeUndefined()
  })

  test('whose parts overlap: each file has its own bytes', async () => {
    const whole = { path: 'b', offset: 0, length: 10 }
    const lazy = () => shared([a, whole], bytes, [[0, 10]])
    expect(await difference(lazy(), tar('alpha', 'alphabravo'))).toBeUndefined()
    expect(await difference(lazy(), tar('alphb', 'alphabravo'))).toMatch(/^"[ab]"(, "b")?: contents differ/)
    expect(await difference(lazy(), tar('alpha', 'alphbbravo'))).toMatch(/^"[ab]"(, "b")?: contents differ/)
    // the same the other way round: the shorter one comes later on the device
    const turned = shared(
      [
        { ...whole, path: 'a' },
        { ...a, path: 'b' },
      ],
      bytes,
      [[0, 10]],
    )
    expect(await difference(turned, tar('alphabravo', 'alphb'))).toMatch(/contents differ/)
  })

  test('cannot be compared where digests overlap', async () => {
    const lazy = shared([a, b], bytes, [[0, 6], [4, 10]]) // biome-ignore format: a table
    expect(await difference(lazy, tar('alpha', 'bravo'))).toMatch(/^"a": cannot be compared: digests .* overlap/)
  })
})

describe('a file with zeros that no chunk holds', () => {
  /** `text` and 5000 zeros, of which only the text is in a chunk. */
  const lazy = (bytes: string) => {
    const { blobs, chunks, entries, first } = layer([file('a', bytes)])
    const at = bytes.length
    return buildTree({
      blobs,
      chunks,
      first,
      entries: entries.map(({ extents = [], ...entry }) => ({
        ...entry,
        size: at + 5000,
        extents: [...extents, { at, chunk: ZEROS, offset: 0, length: 5000 }],
      })),
    })
  }
  const tar = (of: Buffer, chunkBytes?: number) => plain([file('a', of)], chunkBytes)
  const behind = (bytes: string) => Buffer.concat([Buffer.from(bytes), new Uint8Array(5000)])

  test('is the same where the tar has zeros, however its bytes are cut', async () => {
    expect(await difference(lazy('alpha'), tar(behind('alpha')))).toBeUndefined()
    expect(await difference(lazy('alpha'), tar(behind('alpha'), 7))).toBeUndefined()
    expect(await difference(lazy(''), tar(Buffer.alloc(5000)))).toBeUndefined()
  })

  test('is another where the tar has anything else', async () => {
    for (const at of [5, 2500, 5004]) {
      const other = behind('alpha')
      other[at] = 1
      expect(await difference(lazy('alpha'), tar(other))).toMatch(
        /^"a": contents differ: bytes 5 to 5005 are zeros as served/,
      )
    }
    expect(await difference(lazy('alpha'), tar(behind('alphb')))).toMatch(/^"a": contents differ: sha256/)
  })
})

describe('what the builder would not make', () => {
  const only = [file('a', 'alpha')]

  /** The tree of `of` with another chunk table, which its image names. */
  function withTable(
    of: Side,
    change: (chunk: StoredChunk & { places: { from: number; length: number; at: number }[] }) => void,
    zeros: Range[] = [],
  ): Side {
    const chunks = Array.from({ length: of.chunks.length }, (_, i) => structuredClone(of.chunks.get(i)))
    for (const each of chunks) change(each as Parameters<typeof change>[0])
    const { blobs, first, deviceSize } = of.chunks
    const table = new ChunkTable(encodeChunks(blobs, chunks, first, deviceSize, zeros))
    const image = Buffer.from(of.image)
    const tag = image.indexOf(of.chunks.contentDigest().slice('sha256:'.length), 0, 'latin1')
    image.write(table.contentDigest().slice('sha256:'.length), tag, 'latin1')
    return { image, chunks: table }
  }

  test('a table of digests by another algorithm cannot be compared', async () => {
    const lazy = withTable(served(only), (chunk) => {
      chunk.checks = chunk.checks.map((each) => ({ ...each, digest: `blake3:${hex(each.digest)}` }))
    })
    expect(await difference(lazy, plain(only))).toMatch(/^"a": cannot be compared: its digest is of another kind/)
  })

  test('a table of digests of stored bytes cannot be compared', async () => {
    const lazy = withTable(served(only), (chunk) => {
      chunk.checks = chunk.checks.map((each) => ({ ...each, of: 'stored' }))
    })
    expect(await difference(lazy, plain(only))).toMatch(/^"a": cannot be compared: no digest of decoded bytes/)
  })

  test('a digest that covers a part only', async () => {
    const lazy = withTable(served(only), (chunk) => {
      chunk.checks = [{ of: 'decoded', range: { start: 0, end: 4 }, digest: digestOf(Buffer.from('alph')) }]
    })
    expect(await difference(lazy, plain(only))).toMatch(/^"a": cannot be compared: no digest of decoded bytes/)
  })

  test('a file of which a part lies in no chunk, or in two', async () => {
    const short = withTable(served(only), ({ places }) => {
      for (const each of places) each.length = 4
    })
    expect(await difference(short, plain(only))).toMatch(/^"a": cannot be compared: the places/)
    const twice = withTable(served(only), ({ places }) => places.push({ from: 0, length: 1, at: 0 }))
    expect(await difference(twice, plain(only))).toMatch(/^"a": cannot be compared: /)
  })

  test('zeros over a place, behind a file, and of nobody', async () => {
    const unchanged = () => {}
    const over = withTable(served(only), unchanged, [{ start: 4, end: 5 }])
    expect(await difference(over, plain(only))).toMatch(/^"a": cannot be compared: the places/)
    const behind = withTable(
      served([file('a', 'alp\0\0')]),
      ({ places, checks }) => {
        for (const each of places) each.length = 3
        for (const each of checks)
          Object.assign(each, { range: { start: 0, end: 3 }, digest: digestOf(Buffer.from('alp')) })
      },
      [{ start: 3, end: 6 }],
    )
    expect(await difference(behind, plain([file('a', 'alp\0\0')]))).toMatch(/^"a": cannot be compared: its zeros/)
    const nobody = withTable(served(only), unchanged, [{ start: 1 << 20, end: 1 << 21 }])
    expect(await difference(nobody, plain(only))).toBeUndefined()
  })

  test('a file that a place reaches into from before it', async () => {
    const two = [file('a', 'alpha'), file('b', 'bravo')]
    for (const before of [1, 4000]) {
      const early = withTable(served(two), ({ places }) => {
        for (const each of places) if (each.at === 4096) Object.assign(each, { at: 4096 - before, length: 5 + before })
      })
      expect(await difference(early, plain(two))).toMatch(/^"b": cannot be compared: the places/)
    }
  })

  test('a chunk that goes on behind its file cannot be compared', async () => {
    const long = withTable(served([file('a', 'alpha'), file('b', BIG)]), ({ places }) => {
      for (const each of places) if (each.length === 5) each.length = 6
    })
    const tar = plain([file('a', 'alpha'), file('b', BIG)])
    expect(await difference(long, tar)).toMatch(/^"a": cannot be compared: its chunk \d ends behind it/)
  })

  test('places of nobody are none of our business', async () => {
    const lazy = withTable(served(only), ({ places }) => places.push({ from: 2, length: 3, at: 1 << 20 }))
    expect(await difference(lazy, plain(only))).toBeUndefined()
    expect(await difference(lazy, plain([file('a', 'alphb')]))).toMatch(/^"a": contents differ/)
  })

  test('files whose places overlap cannot be compared', async () => {
    const lazy = served([file('a', 'alpha'), file('b', 'alpha')])
    const image = lazy.image.slice()
    const nid = new ErofsReader(image).resolve('b') as number
    image[nid * NID_BYTES + INODE.size] = 4
    const tar = plain([file('a', 'alpha'), file('b', 'alph')])
    expect(await difference({ ...lazy, image }, tar)).toMatch(/^"[ab]": cannot be compared: it shares a part/)
  })

  test('an image with the table of another', async () => {
    const [lazy, other] = [served(only), served([file('a', 'bravo')])]
    const tar = plain(only)
    expect(await difference({ image: lazy.image, chunks: other.chunks }, tar)).toMatch(/do not belong together/)
    expect(await difference(lazy, { ...tar, chunks: other.chunks })).toMatch(/do not belong together/)
  })

  test('a tar whose files are no pieces of it is an error', async () => {
    await expect(difference(served(only, 3), served(only) as TarSide)).rejects.toMatchObject({ code: 'corrupt' })
  })

  test('a damaged image is an error or a difference, whichever byte it is', async () => {
    const lazy = served(base)
    const tar = plain(base, 9000)
    await fc.assert(
      fc.asyncProperty(fc.nat(lazy.image.length - 1), fc.nat(254), async (at, by) => {
        const image = lazy.image.slice()
        image[at] = (image[at] ?? 0) ^ (by + 1)
        try {
          const found = await difference({ ...lazy, image }, tar)
          expect(found === undefined || found.length > 10).toBe(true)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
      }),
      { numRuns: runs(300) },
    )
  })
})

test('random layers: equal to themselves, and one mutation is found', async () => {
  let found = 0
  await fc.assert(
    fc.asyncProperty(
      specs,
      fc.nat(),
      fc.nat(5),
      fc.constantFrom(1, 100, 10_000),
      async (of, which, how, chunkBytes) => {
        let lazy: Side
        try {
          lazy = served(of)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
          return
        }
        expect(await difference(lazy, plain(of, chunkBytes))).toBeUndefined()
        const mutated = mutate(of, which, how)
        let other: TarSide
        try {
          other = plain(mutated, chunkBytes)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
          return
        }
        // entries that others replace make no difference, and then the images are the same
        const same = Buffer.compare(served(mutated).image, lazy.image) === 0
        const verdict = await difference(lazy, other)
        expect(verdict === undefined).toBe(same)
        if (!same) found++
      },
    ),
    { numRuns: runs(400) },
  )
  expect(found).toBeGreaterThan(runs(60))
})

function mutate(of: readonly Spec[], which: number, how: number): Spec[] {
  const at = which % (of.length + 1)
  const spec = of[at]
  if (spec === undefined) return [...of, file('new', 'new')]
  const changes: Partial<Spec>[] = [
    { uid: (spec.uid ?? 0) + 1 },
    { mtime: (spec.mtime ?? 0n) + 3_000_000_000n },
    { mode: (spec.mode ?? 0) ^ 0o001 },
    spec.bytes?.length ? { bytes: flipped(Buffer.from(spec.bytes), spec.bytes.length - 1) } : { gid: 9 },
    { path: `${spec.path}2` },
  ]
  const change = changes[how]
  return change ? of.map((each, i) => (i === at ? { ...each, ...change } : each)) : of.filter((_, i) => i !== at)
}

if (SAMPLES) describe('sample images are as their tars are', sampleTests)
else test.skip('sample images: LAZYLAYER_SAMPLES is not set', () => {})

function sampleTests(): void {
  for (const [folder, tag] of [
    ['samples/oci', 'esgz'],
    ['samples/oci', 'esgz-min'],
    ['images/py-esgz', 'py'],
  ] as const) {
    for (const layer of [0, 1]) {
      test(`${tag}, layer ${layer + 1}`, async () => {
        const { bytes, descriptor } = sampleLayers(folder, tag)[layer] as ReturnType<typeof sampleLayers>[number]
        const { lazy, tar } = await bothSides(bytes, descriptor)
        expect(await difference(lazy, tar)).toBeUndefined()
        // one bit of one of its files
        const chunk = tar.chunks.get(tar.chunks.length >> 1)
        const changedTar = await scanned(flipped(tar.bytes, chunk.stored.start))
        expect(await difference(lazy, changedTar)).toMatch(/: contents differ/)
      })
    }
  }
}

test('what one of the trees may lack is no refutation, and hides none', async () => {
  const mayLack = new Set(['index'])
  const whole = [...base, file('index', '{}')]
  const found = async (one: readonly Spec[], other: readonly Spec[]) => {
    const tar = plain(other)
    const read = ({ start, end }: { start: number; end: number }) => tar.bytes.subarray(start, end)
    return await firstDifference(served(one), tar, read, { mayLack })
  }
  expect(await found(whole, base)).toEqual({ what: '"index": a file that the tar does not have', open: true })
  expect(await found(base, whole)).toEqual({ what: `"index": the tar's file is not served`, open: true })
  for (const change of [
    changed('d/big', { bytes: flipped(BIG, 5) }),
    [...base, file('zzz', 'z')],
    changed('d/x', []),
  ]) {
    expect(await found(whole, change)).toMatchObject({ open: false })
    expect(await found(change, whole)).toMatchObject({ open: false })
  }
  // elsewhere it is a file as any other
  expect(await found([...base, file('d/index', '{}')], base)).toMatchObject({ open: false })
})

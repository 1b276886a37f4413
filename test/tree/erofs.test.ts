import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { buildTree } from '../../src/tree/build.ts'
import { growTree } from '../../src/tree/entries.ts'
import { writeImage } from '../../src/tree/erofs.ts'
import { IMAGE_MAX_BYTES } from '../../src/tree/erofs-plan.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { makeDirectory } from '../../src/tree/inode.ts'
import { suite } from '../e2e/engines/suite.ts'
import { fsck, NO_FSCK } from '../fixtures/fsck.ts'
import { runs } from '../fixtures/runs.ts'
import { edges, name } from './edges.ts'
import { dir, fifo, file, layer, MTIME, type Spec, symlink } from './layer.ts'
import { show } from './show.ts'

const DEVICE = { tag: 'ab'.repeat(32), blocks: 3 }
const build = (...specs: Spec[]) => buildTree(layer(specs)).image

suite('fsck.erofs accepts', NO_FSCK, () => {
  for (const [title, specs] of edges) test(title, () => fsck(build(...specs())))

  test('an image of many devices, some of them empty', async () => {
    const root = makeDirectory()
    const of = (device: number) => ({
      mode: 0o100644,
      uid: 0,
      gid: 0,
      mtime: 0n,
      size: 4096,
      xattrs: new Map(),
      content: { device, offset: 8192 },
    })
    root.children.set('first', of(1))
    root.children.set('last', of(127))
    await fsck(writeImage(root, [...Array.from({ length: 127 }, (_, i) => ({ ...DEVICE, blocks: i % 2 ? 0 : 3 }))]))
  })

  test('files beyond 4 GiB, up to 8 TiB', async () => {
    const root = makeDirectory()
    for (const [i, size] of [2 ** 32, 2 ** 32 + 1, 2 ** 43 - 4096].entries()) {
      const content = { device: 1, offset: i * 4096 }
      root.children.set(`f${i}`, { mode: 0o100644, uid: 0, gid: 0, mtime: 0n, size, xattrs: new Map(), content })
    }
    await fsck(writeImage(root, [{ ...DEVICE, blocks: 2 ** 31 + 1 }]))
  })

  test('but not a changed superblock', async () => {
    const image = build(file('f', 'x'))
    image[1024 + 16] = 99
    await expect(fsck(image)).rejects.toThrow(/chksum/)
  })
})

describe('what was written is read back', () => {
  for (const [title, specs] of edges) {
    test(title, () => {
      const entries = specs()
      const image = build(...entries)
      const reader = new ErofsReader(image)
      for (const spec of entries) {
        const nid = reader.resolve(spec.path)
        if (nid === undefined) throw new Error(`${spec.path} is not found`)
        const of = reader.attributes(nid)
        expect(of.mtime).toBe(MTIME)
        if (spec.link === undefined) expect(of.mode).toBe(spec.mode)
        if (spec.target !== undefined) expect(reader.readlink(nid)).toBe(spec.target)
        expect(reader.xattrs(nid)).toEqual(spec.xattrs ?? new Map())
      }
      const paths = show(image).map((line) => line.split(' ')[0])
      expect(paths.length).toBeGreaterThanOrEqual(entries.length)
    })
  }

  test('times before 1970 and of any nanosecond', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 80n), max: 2n ** 80n }), (mtime) => {
        const reader = new ErofsReader(build(file('f', '', { mtime })))
        expect(reader.attributes(reader.resolve('f') as number).mtime).toBe(mtime)
      }),
    )
  })

  test('a name that is not there, before, between and behind those that are', () => {
    const reader = new ErofsReader(build(...Array.from({ length: 500 }, (_, i) => fifo(`d/${name(i, 100)}`))))
    const directory = reader.resolve('d') as number
    for (const absent of ['', '!', '.', '..', `${name(250, 100)}x`, name(250, 99), 'z', 'é']) {
      expect(reader.lookup(directory, absent)).toBeUndefined()
    }
    expect(reader.resolve('d/x/y')).toBeUndefined()
    expect(reader.resolve(`d/${name(3, 100)}/y`)).toBeUndefined()
    expect(reader.resolve('')).toBe(reader.root)
  })

  test('directories count their subdirectories as links', () => {
    const reader = new ErofsReader(build(dir('a/b'), dir('a/c'), file('a/f')))
    expect(reader.attributes(reader.root).nlink).toBe(3)
    expect(reader.attributes(reader.resolve('a') as number).nlink).toBe(4)
    expect(reader.attributes(reader.resolve('a/b') as number).nlink).toBe(2)
  })

  test('the devices', () => {
    expect(new ErofsReader(writeImage(makeDirectory(), [DEVICE, { ...DEVICE, blocks: 0 }])).devices).toEqual([
      DEVICE,
      { ...DEVICE, blocks: 0 },
    ])
  })
})

describe('an image', () => {
  test('is the same for the same tree, and for the same tree in another order of entries', () => {
    const xattrs = (...names: string[]) => new Map(names.map((name) => [name, Buffer.from(name)]))
    const one = growTree(
      layer([file('a/x', '', { xattrs: xattrs('user.a', 'user.b') }), dir('b'), dir('a')]).entries,
    ).root
    const two = growTree(
      layer([dir('b'), dir('a'), file('a/x', '', { xattrs: xattrs('user.b', 'user.a') })]).entries,
    ).root
    expect(writeImage(one, [DEVICE])).toEqual(writeImage(two, [DEVICE]))
  })

  test('never has node number 0, which readdir would hide', () => {
    expect(new ErofsReader(build()).root).toBeGreaterThan(0)
  })

  test('has siblings side by side', () => {
    const reader = new ErofsReader(build(...['a', 'b', 'c'].flatMap((d) => [dir(d), fifo(`${d}/1`), fifo(`${d}/2`)])))
    const order = ['', 'a', 'b', 'c', 'a/1', 'a/2', 'b/1', 'b/2', 'c/1', 'c/2'].map(
      (path) => reader.resolve(path) as number,
    )
    expect(order).toEqual(order.toSorted((a, b) => a - b))
  })

  test('is refused beyond its limits', () => {
    const root = makeDirectory()
    const xattrs = new Map([1, 2, 3].map((i) => [`user.${i}`, new Uint8Array(65_535)]))
    for (let i = 0; i < IMAGE_MAX_BYTES / 196_000; i++) root.children.set(`${i}`, { ...makeDirectory(), xattrs })
    expect(() => writeImage(root, [])).toThrow(expect.objectContaining({ code: 'limit' }))
    expect(() => writeImage(makeDirectory(), new Array(4097).fill(DEVICE))).toThrow(/devices/)
  })
})

describe('a damaged image', () => {
  const image = build(
    dir('d', { xattrs: new Map([['user.a', Buffer.from('1')]]) }),
    file('d/f', 'hello'),
    symlink('d/s', 't'.repeat(4090)),
    ...Array.from({ length: 40 }, (_, i) => fifo(`e/${name(i, 200)}`)),
  )

  test('gives a Failure or an answer, never anything else, wherever it is changed or cut', () => {
    const used = [...image.keys()].filter((at) => image[at] !== 0)
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(...used), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(image.length), { nil: image.length }),
        (changes, length) => {
          const changed = image.slice(0, length)
          for (const [at, byte] of changes) changed[at] = byte
          try {
            walk(changed)
          } catch (error) {
            if (!(error instanceof Failure)) throw error
            expect(error.code).toBe('corrupt')
          }
        },
      ),
      { numRuns: runs(300) },
    )
  })

  test('is named so', () => {
    expect(() => new ErofsReader(new Uint8Array(0))).toThrow(/damaged/)
    expect(() => new ErofsReader(new Uint8Array(4096))).toThrow(/no EROFS image/)
    const other = image.slice()
    other[1024 + 80] = 1
    expect(() => new ErofsReader(other)).toThrow(/another kind/)
  })

  test('cannot make a file reach beyond its device', () => {
    const root = makeDirectory()
    const content = { device: 1, offset: 4096 }
    root.children.set('f', { mode: 0o100644, uid: 0, gid: 0, mtime: 0n, size: 8193, xattrs: new Map(), content })
    const reader = new ErofsReader(writeImage(root, [DEVICE]))
    expect(() => reader.content(reader.resolve('f') as number)).toThrow(/damaged/)
    const missing = new ErofsReader(writeImage(root, []))
    expect(() => missing.content(missing.resolve('f') as number)).toThrow(/damaged/)
  })

  test('of a directory in itself is read only as far as asked', () => {
    const reader = new ErofsReader(image)
    for (const bad of [-1, 0.5, 2 ** 40, 2 ** 53]) expect(() => reader.attributes(bad)).toThrow(/damaged/)
    expect(() => reader.readlink(reader.root)).toThrow(expect.objectContaining({ code: 'usage' }))
    expect(() => [...reader.readdir(reader.resolve('d/s') as number)]).toThrow(
      expect.objectContaining({ code: 'usage' }),
    )
    expect(() => reader.content(reader.root)).toThrow(expect.objectContaining({ code: 'usage' }))
  })
})

/** Reads everything two levels deep, as a changed directory may contain itself. */
function walk(image: Uint8Array): void {
  const reader = new ErofsReader(image)
  const pending = [{ nid: reader.root, depth: 0 }]
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { mode } = reader.attributes(next.nid)
    reader.xattrs(next.nid)
    if ((mode & 0o170000) === 0o120000) reader.readlink(next.nid)
    if ((mode & 0o170000) === 0o100000) reader.content(next.nid)
    if ((mode & 0o170000) !== 0o040000 || next.depth > 2) continue
    for (const { name, nid } of reader.readdir(next.nid)) {
      reader.lookup(next.nid, name)
      pending.push({ nid, depth: next.depth + 1 })
    }
  }
}

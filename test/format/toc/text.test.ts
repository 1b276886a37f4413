import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { estargz } from '../../../src/format/estargz/estargz.ts'
import { type Item, item, type StargzOptions, stargz } from '../estargz/stargz-craft.ts'
import { MemoryBlob, sourceOf } from '../memory-blob.ts'
import { GNU, header, member, pax } from '../tar/tar-craft.ts'
import { unitOf } from '../unit.ts'

const bytes = (text: string) => Buffer.from(text, 'latin1')
const REAL = bytes('d/\xef\xbf\xbd')
const AS_JSON = 'd/\ufffd'
/** An entry whose headers have other bytes than its table. */
const called = (name: Uint8Array, toc: Record<string, unknown>, contents = '') =>
  item(toc, contents, header({ name, size: contents.length, mtime: '0' }))

async function entriesOf(items: readonly Item[], options: Partial<StargzOptions> = {}) {
  const { blob, descriptor } = stargz(items, { ended: true, ...options })
  const memory = new MemoryBlob(blob)
  const index = await estargz.readIndex(unitOf(descriptor), sourceOf(memory))
  const { entries } = estargz.parseIndex(index, unitOf(descriptor))
  return { entries: [...entries], requests: memory.ranges.length }
}

async function refused(items: readonly Item[], why = 'no UTF-8', options?: Partial<StargzOptions>): Promise<void> {
  const error = await entriesOf(items, options).then(
    () => undefined,
    (error: unknown) => error as Failure,
  )
  expect(error).toBeInstanceOf(Failure)
  expect(error).toMatchObject({ code: 'unsupported', message: expect.stringContaining('U+FFFD') })
  expect(`${error?.message} ${error?.why}`).toContain(why)
}

const shapes: [string, Partial<StargzOptions>][] = [
  ['a member a file', {}],
  ['shared members', { minChunkSize: 10_000 }],
  ['small chunks', { chunkSize: 3 }],
  ['escapes', { escaped: true }],
]

describe.each(shapes)('in %s', (_, options) => {
  const front = [item({ name: 'a' }, 'alpha'), item({ name: 'd/', type: 'dir' })]

  test('files whose names were replaced are left to the engine', async () => {
    const one = called(bytes('d/\xff'), { name: AS_JSON }, 'one')
    const other = called(bytes('d/\xaa'), { name: AS_JSON }, 'other')
    await refused([...front, one, other, item({ name: 'z' }, 'omega')], undefined, options)
    await refused([one], undefined, options)
    await refused([...front, item({ name: AS_JSON }, 'one'), other], undefined, options)
  })

  test('a name that has the character itself is one', async () => {
    const items = [...front, called(REAL, { name: AS_JSON }, 'one'), item({ name: 'z' }, 'omega')]
    for (const of of [items, items.slice(2), items.slice(0, 3)]) {
      expect((await entriesOf(of, options)).entries.map(({ path }) => path)).toContain(AS_JSON)
    }
  })

  test('targets, links, and names of attributes that were replaced are left to the engine', async () => {
    const make = (type: string, name: string, linkName: Uint8Array) =>
      item({ name, type, linkName: '\ufffd' }, '', header({ name, type: type === 'symlink' ? '2' : '1', linkName }))
    const real = [
      make('symlink', 's', bytes('\xef\xbf\xbd')),
      make('hardlink', 'h', bytes('\xef\xbf\xbd')),
      item({ name: '\ufffd' }, '', header({ name: bytes('\xef\xbf\xbd') })),
    ]
    expect((await entriesOf([...front, ...real], options)).entries).toMatchObject([
      {},
      {},
      { path: 's', target: '\ufffd' },
      { path: 'h', link: '\ufffd' },
      { path: '\ufffd' },
    ])
    await refused([...front, make('symlink', 's', bytes('\xff'))], undefined, options)
    await refused([...front, make('hardlink', 'h', bytes('\xfe'))], undefined, options)
    const attribute = (name: Uint8Array) =>
      item(
        { name: 'x', xattrs: { 'user.\ufffd': 'eA==' } },
        '',
        Buffer.concat([pax([[Buffer.concat([bytes('SCHILY.xattr.user.'), name]), 'x']]), header({ name: 'x' })]),
      )
    await refused([...front, attribute(bytes('\x80'))], undefined, options)
    expect((await entriesOf([...front, attribute(bytes('\xef\xbf\xbd'))], options)).entries.at(-1)?.xattrs?.size).toBe(
      1,
    )
  })
})

test('long names are read as engines read them', async () => {
  const name = `${'n'.repeat(120)}\ufffd`
  const asPax = Buffer.concat([pax([['path', name]]), header({ name: 'short' })])
  const asGnu = Buffer.concat([member({ type: 'L', name: '././@LongLink', magic: GNU }, name), header({ magic: GNU })])
  for (const headers of [asPax, asGnu]) {
    expect((await entriesOf([item({ name }, '', headers)])).entries[0]?.path).toBe(name)
    await refused([item({ name: name.slice(1) }, '', headers)], 'is called otherwise')
  }
})

test('the character in other text of the table is nothing', async () => {
  const items = [item({ name: 'a', uname: '\ufffd', extra: { name: '\ufffd' } }, 'alpha'), item({ name: '\\ufffd' })]
  expect((await entriesOf(items)).entries.map(({ path }) => path)).toEqual(['a', '\\ufffd'])
})

test('headers that are far from the table take one request; many, or large ones, are left to the engine', async () => {
  const large = (size: number) => item({ name: 'large' }, new Uint8Array(randomBytes(size)))
  const real = called(REAL, { name: AS_JSON }, 'one')
  const after = item({ name: 'z' }, new Uint8Array(randomBytes(200_000)))
  const near = await entriesOf([large(100_000), item({ name: 'b' }, 'bravo'), real])
  expect(near.requests).toBe(1)
  expect((await entriesOf([item({ name: 'b' }, 'bravo'), real, after])).requests).toBe(2)
  expect((await entriesOf([large(5 << 20), real, after])).requests).toBe(2)
  await refused([large(17 << 20), real, after], 'cheaply', { chunkSize: 30 << 20 })
  const many = Array.from({ length: 20 }, (_, i) =>
    called(bytes(`d/\xef\xbf\xbd${i}`), { name: `${AS_JSON}${i}` }, 'x'),
  )
  await refused(many, '20 of its entries')
  expect((await entriesOf(many, { minChunkSize: 1 << 20 })).entries).toHaveLength(20)
})

import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { linkName } from '../../src/stores/chain.ts'
import { inUse, referenced } from '../../src/stores/engine-roots.ts'
import type { EngineRoot } from '../../src/stores/read-roots.ts'
import { records } from '../../src/stores/read-roots.ts'

const id = (letter: string) => letter.repeat(64)
const link = (letter: string) => letter.repeat(26)

/** As Podman 4.3.1 writes them, but for the names: an image of a listed layer, one layer on it, and a container. */
const PODMAN = {
  'overlay-images/images.json': JSON.stringify([
    {
      id: id('1'),
      digest: `sha256:${id('2')}`,
      names: ['r.example.com/py:py'],
      layer: id('a'),
      'mapped-layers': [id('b')],
      metadata: '{}',
      created: '2026-01-01T00:00:00Z',
    },
  ]),
  'overlay-layers/layers.json': JSON.stringify([
    { id: id('c'), parent: id('a'), created: '2026-01-01T00:00:00Z', 'diff-size': 10, compression: 2 },
    { id: id('e'), created: '2026-01-01T00:00:00Z' },
  ]),
  'overlay-containers/containers.json': JSON.stringify([{ id: id('3'), image: id('1'), layer: id('c'), flags: {} }]),
  [`overlay/${id('c')}/link`]: link('C'),
  [`overlay/${id('c')}/lower`]: `l/${link('A')}:l/${link('B')}`,
  [`overlay/${id('e')}/link`]: link('E'),
}

async function makeRoot(files: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'lazylayer-root-'))
  onTestFinished(() => rm(dir, { recursive: true }))
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, path)), { recursive: true })
    await writeFile(join(dir, path), text)
  }
  return dir
}

async function read(...roots: EngineRoot[]) {
  const warnings: string[] = []
  const found = await referenced(roots, (message) => warnings.push(message))
  return {
    ids:
      found &&
      [...found.ids]
        .map((each) => each[0])
        .sort()
        .join(''),
    links:
      found &&
      [...found.links]
        .map((each) => each[0])
        .sort()
        .join(''),
    warnings,
  }
}

test('images, containers and layers refer to layers, and lower files to all below', async () => {
  expect(await read({ dir: await makeRoot(PODMAN) })).toEqual({ ids: 'abc', links: 'AB', warnings: [] })
})

test('several roots are put together; one that is not there, or new, refers to nothing', async () => {
  const other = await makeRoot({ 'overlay-images/images.json': JSON.stringify([{ id: id('4'), layer: id('f') }]) })
  const fresh = await makeRoot({})
  const roots = [await makeRoot(PODMAN), other, fresh, '/nowhere', `${fresh}/x`].map((dir) => ({ dir }))
  expect(await read(...roots)).toEqual({ ids: 'abcf', links: 'AB', warnings: [] })
  expect(await read()).toEqual({ ids: '', links: '', warnings: [] })
})

test('volatile containers and layers count, here or in the run root', async () => {
  const volatile = {
    'overlay-containers/volatile-containers.json': JSON.stringify([{ id: id('5'), layer: id('d') }]),
    'overlay-layers/volatile-layers.json': JSON.stringify([{ id: id('d'), parent: id('f') }]),
  }
  expect(await read({ dir: await makeRoot({ ...PODMAN, ...volatile }) })).toMatchObject({ ids: 'abcdf' })
  const run = await makeRoot(volatile)
  expect(await read({ dir: await makeRoot(PODMAN), run })).toMatchObject({ ids: 'abcdf' })
})

test('what is empty, or Go’s null, is a list of nothing; unknown fields and odd values do no harm', async () => {
  const dir = await makeRoot({
    'overlay-images/images.json': 'null',
    'overlay-layers/layers.json': '',
    'overlay-containers/containers.json': JSON.stringify([{ layer: 7 }, { layer: null, more: [] }, { layer: id('a') }]),
    [`overlay/${id('a')}/diff/lower`]: 'not read',
    'overlay/l/lower': 'not read',
    'overlay/tempdirs/lower': 'not read',
    'overlay/.has-mount-program': '',
  })
  expect(await read({ dir })).toEqual({ ids: 'a', links: '', warnings: [] })
})

test.each<[string, Record<string, string>, RegExp]>([
  ['no JSON', { 'overlay-images/images.json': '[{"id": ' }, /images\.json is no list/],
  ['no list', { 'overlay-layers/layers.json': '{}' }, /layers\.json is no list/],
  ['no records', { 'overlay-containers/containers.json': '[[]]' }, /containers\.json is no list/],
  ['no UTF-8', { 'overlay-images/images.json': '[]\udcff' }, /^$/],
  ['too many records', { 'overlay-images/images.json': `[${'{},'.repeat(200_000)}{}]` }, /is no list/],
  ['lists without end', { 'overlay-images/images.json': `[{"x":[${'[{}],'.repeat(700_000)}[]]}]` }, /is no list/],
  ['fields without end', { 'overlay-layers/layers.json': `[{"x":[${'0,'.repeat(2_000_000)}0]}]` }, /is no list/],
  ['a long list of layers below', { [`overlay/${id('c')}/lower`]: 'l/'.repeat(10_000) }, /larger than/],
  ['something else below', { [`overlay/${id('c')}/lower`]: 'l/../../etc' }, /names "l\/\.\.\/\.\.\/etc"/],
  ['layers without their list', { [`overlay/${id('c')}/link`]: link('C'), 'overlay-layers/layers.json': 'gone' }, /./],
])('a root with %s cannot be read for sure: so nothing may be dropped', async (what, files, why) => {
  const dir = await makeRoot({ ...PODMAN, ...files })
  if (what === 'no UTF-8') await writeFile(join(dir, 'overlay-images/images.json'), new Uint8Array([0x5b, 0xff, 0x5d]))
  if (what === 'layers without their list') await rm(join(dir, 'overlay-layers/layers.json'))
  const { ids, warnings } = await read({ dir: await makeRoot(PODMAN) }, { dir })
  expect(ids).toBeUndefined()
  expect(warnings).toHaveLength(1)
  if (what !== 'no UTF-8') expect(warnings[0]).toMatch(why)
})

test('files that would keep us waiting, or that lead in a circle, cannot be read for sure', async () => {
  const fifo = await makeRoot({ 'overlay-images/x': '' })
  await promisify(execFile)('mkfifo', [join(fifo, 'overlay-images/images.json')])
  expect((await read({ dir: fifo })).warnings).toEqual([expect.stringContaining('no regular file')])
  const circle = await makeRoot({ 'overlay-images/x': '' })
  await symlink('images.json', join(circle, 'overlay-images/images.json'))
  expect((await read({ dir: circle })).ids).toBeUndefined()
  const folder = await makeRoot({ 'overlay-layers/layers.json/x': '' })
  expect((await read({ dir: folder })).ids).toBeUndefined()
  const large = await makeRoot({ 'overlay-layers/layers.json': `[${' '.repeat(16 << 20)}]` })
  expect((await read({ dir: large })).warnings).toEqual([expect.stringContaining('larger than')])
  expect((await read(...Array.from({ length: 1025 }, () => ({ dir: '/nowhere' })))).ids).toBeUndefined()
})

test('a file that is cut short is read again, a few times: an engine may be about to replace it', async () => {
  const encoder = new TextEncoder()
  const check = async (texts: string[]) => {
    const left = [...texts]
    const found = await records('f', async () => encoder.encode(left.shift())).catch((error: unknown) => error)
    return { found, left: left.length }
  }
  const whole = '[{"id":"a"}]'
  expect(await check(['[{"id', whole])).toEqual({ found: [{ id: 'a' }], left: 0 })
  expect(await check(['[', '[{', whole])).toEqual({ found: [{ id: 'a' }], left: 0 })
  expect(await check(['[', '[', '[', whole])).toMatchObject({ found: { code: 'corrupt' }, left: 1 })
})

test('while engines write, what was there all the time is seen', async () => {
  const dir = await makeRoot(PODMAN)
  const path = join(dir, 'overlay-images/images.json')
  const [image] = JSON.parse(PODMAN['overlay-images/images.json'])
  let reading = true
  const writing = (async () => {
    for (let i = 0; reading; i++) {
      const others = Array.from({ length: i % 50 }, (_, n) => ({ id: `${n}`, layer: id('f') }))
      await writeFile(`${path}.new`, JSON.stringify([...others, image]))
      await rename(`${path}.new`, path)
    }
    return undefined
  })()
  for (let i = 0; i < 10; i++) {
    const { ids, links, warnings } = await read({ dir })
    expect({ ids: ids?.replace('f', ''), links, warnings }).toEqual({ ids: 'abc', links: 'AB', warnings: [] })
  }
  reading = false
  await writing
})

test('reading ends when it is given up', async () => {
  const dir = await makeRoot(PODMAN)
  await expect(referenced([{ dir }], () => {}, AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' })
})

test('a layer is in use by its name, by its link, or because a layer above it is', () => {
  const listed = [
    { id: 'base', parent: undefined },
    { id: 'middle', parent: 'base' },
    { id: 'top', parent: 'middle' },
    { id: 'other', parent: 'base' },
    { id: 'alone', parent: undefined },
  ]
  const used = (ids: string[], links: string[]) =>
    [...inUse(listed, { ids: new Set(ids), links: new Set(links) })].sort()
  expect(used([], [])).toEqual([])
  expect(used(['unknown'], [link('A')])).toEqual([])
  expect(used(['top'], [])).toEqual(['base', 'middle', 'top'])
  expect(used(['middle', 'other'], [])).toEqual(['base', 'middle', 'other'])
  expect(used([], [linkName('alone'), linkName('base')])).toEqual(['alone', 'base'])
  // whoever makes them up gets no endless loop
  const circle = [
    { id: 'x', parent: 'y' },
    { id: 'y', parent: 'x' },
  ]
  expect([...inUse(circle, { ids: new Set(['x']), links: new Set() })].sort()).toEqual(['x', 'y'])
})

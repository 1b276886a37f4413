// Programs tell files apart by device and inode number: dlopen, cp, tar, find, du. Layers that are built alike have the same numbers in
// their images, and engines make one filesystem of several layers.
import { existsSync } from 'node:fs'
import { mkdir, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { RUNGS } from '../../src/mount/ladder.ts'
import { cloneIdmapped } from '../fixtures/idmap.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { mistaken, type Swept, sweep } from '../fixtures/sweep.ts'
import { type Agent, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 120_000
const LAYERS = ['one', 'two', 'three']
/** Libraries that every Debian has, and a function of each that says its version. */
const LIBRARIES = [
  { path: '/lib/x86_64-linux-gnu/libz.so.1', says: 'zlibVersion' },
  { path: '/lib/x86_64-linux-gnu/libbz2.so.1.0', says: 'BZ2_bzlibVersion' },
]
const libraries = LIBRARIES.every(({ path }) => existsSync(path))

/** Names and lengths are the same in each layer but for one letter, so that the images number them alike. */
async function entries(layer: string, i: number): Promise<SourceEntry[]> {
  const library = libraries ? LIBRARIES[i] : undefined
  const name = `layer${i}`
  return [
    { path: name, type: 'dir' },
    { path: `${name}/library`, type: 'file', content: library ? await readFile(library.path) : Buffer.from('none') },
    { path: `${name}/file`, type: 'file', content: Buffer.from(`${layer}\n`) },
    { path: `${name}/link`, type: 'hardlink', target: `${name}/file` },
    { path: `${name}/symlink`, type: 'symlink', target: `of-${layer}` },
    { path: `${name}/below`, type: 'dir' },
    { path: `${name}/below/link`, type: 'hardlink', target: `${name}/file` },
    { path: `${name}/below/other`, type: 'file', content: Buffer.from(`other of ${layer}\n`) },
  ]
}

suite('inode numbers', lacking(['umount', 'mount', 'tar', 'cp', 'find', 'fusermount3']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let reference: string
  let agent: Agent | undefined
  const digests: string[] = []
  const mounted: string[] = []

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const layers = []
    for (const [i, name] of LAYERS.entries()) {
      layers.push({ kind: 'estargz' as const, entries: await entries(name, i) })
    }
    const written = await writeImage({ dir: layout, tag: 'image', layers })
    digests.push(...written.layers.map(({ digest }) => digest))
    registry = await serveLayout(layout, work.path)
    reference = `${registry.host}/image:image`
  })
  afterEach(async () => {
    for (const each of mounted.splice(0).reverse()) await command('umount', ['--lazy', each])
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function serve(rung: string): Promise<{ image: string; diffs: string[] }> {
    const root = join(work.path, `store-${rung}`)
    const flags = ['--mount', rung, '--diffid', 'claimed', '--cert-dir', registry.certDir]
    agent = await startAgent(work.path, root, ['serve', root, '--cache', join(work.path, `cache-${rung}`), ...flags])
    const image = join(root, 'layers', Buffer.from(reference).toString('base64'))
    // an engine reads that before it takes a layer; until then it may not be mounted
    for (const each of digests) await succeed('cat', [join(image, each, 'info')])
    return { image, diffs: digests.map((each) => join(image, each, 'diff')) }
  }

  async function overlay(lower: readonly string[]): Promise<string> {
    const own = join(work.path, `container-${mounted.length}-${Math.random()}`)
    for (const each of ['upper', 'work', 'merged']) await mkdir(join(own, each), { recursive: true })
    // as engines do: their names have colons
    for (const [i, each] of lower.entries()) await symlink(each, join(own, `${i}`))
    const options = `lowerdir=${lower.map((_, i) => join(own, `${i}`)).join(':')},upperdir=${own}/upper,workdir=${own}/work`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, join(own, 'merged')])
    mounted.push(join(own, 'merged'))
    return join(own, 'merged')
  }

  /** By path and by program. */
  async function expectRightFiles(at: string): Promise<void> {
    const swept = await sweep(at)
    expect(mistaken(swept.found)).toEqual([])
    for (const [i, layer] of LAYERS.entries()) {
      const of = (path: string) => swept.found.find((each) => each.path === `layer${i}/${path}`)
      expect(await readFile(join(at, `layer${i}/below/link`), 'utf8')).toBe(`${layer}\n`)
      expect(of('link')).toMatchObject({ file: of('file')?.file, links: 3 })
      expect(of('below/link')?.file).toBe(of('file')?.file)
      const same = await succeed('find', ['.', '-samefile', `layer${i}/file`], { cwd: at })
      expect(same.trim().split('\n').sort()).toEqual(
        ['below/link', 'file', 'link'].map((each) => `./layer${i}/${each}`),
      )
    }
    // "are the same file" is what cp said
    const copy = join(work.path, `copy-${Math.random()}`)
    await mkdir(copy)
    for (const i of LAYERS.keys()) {
      await succeed('cp', [join(at, `layer${i}/below/other`), join(copy, 'other')])
      expect(await readFile(join(copy, 'other'), 'utf8')).toBe(`other of ${LAYERS[i]}\n`)
    }
    await succeed('cp', ['--archive', at, join(copy, 'all')])
    const packed = join(copy, 'all.tar')
    await succeed('tar', ['--create', '--file', packed, '--directory', at, '.'])
    await mkdir(join(copy, 'unpacked'))
    await succeed('tar', ['--extract', '--file', packed, '--directory', join(copy, 'unpacked')])
    const contentsOf = ({ path, contents, links, isDirectory }: Swept) => [path, contents, isDirectory ? 0 : links]
    for (const each of ['all', 'unpacked']) {
      const found = (await sweep(join(copy, each))).found
      expect(found.map(contentsOf)).toEqual(swept.found.map(contentsOf))
    }
    if (libraries) {
      const script = `import ctypes, sys
for path, name in zip(sys.argv[1::2], sys.argv[2::2]):
    function = getattr(ctypes.CDLL(path), name)
    function.restype = ctypes.c_char_p
    print(function().decode())`
      const named = (path: (i: number) => string) => LIBRARIES.flatMap(({ says }, i) => [path(i), says])
      const wanted = await succeed(PYTHON, ['-c', script, ...named((i) => LIBRARIES[i]?.path ?? '')])
      expect(await succeed(PYTHON, ['-c', script, ...named((i) => join(at, `layer${i}/library`))])).toBe(wanted)
    }
  }

  for (const rung of ['fuse', 'erofs']) {
    test(`of several layers, on an overlay and after a restart (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const { image, diffs } = await serve(rung)
      await expectRightFiles(await overlay([...diffs].reverse()))
      const before = await Promise.all(diffs.map((each) => sweep(each)))
      expect(before.flatMap(({ disagreeing }) => disagreeing)).toEqual([])
      const labelled = before.flatMap(({ found }, i) => found.map((each) => ({ ...each, path: `${i}/${each.path}` })))
      expect(mistaken(labelled)).toEqual([])
      if (rung === 'fuse') {
        for (const { ino } of labelled) expect(ino).toBeLessThan(2 ** 32)
        // the control tree beside them; names that are asked for are not listed
        const all = await sweep(image)
        expect(all.disagreeing).toEqual([])
        expect(mistaken(all.found)).toEqual([])
        expect(all.found.filter(({ path }) => path.endsWith('/diff')).length).toBe(LAYERS.length)
      }
      for (const each of mounted.splice(0)) await succeed('umount', [each])
      await agent?.stop()
      const again = await serve(rung)
      const after = await Promise.all(again.diffs.reverse().map((each) => sweep(each)))
      expect(after.reverse().map(({ found }) => found.map(({ path, ino }) => [path, ino]))).toEqual(
        before.map(({ found }) => found.map(({ path, ino }) => [path, ino])),
      )
    })

    test(`of idmapped clones of several layers (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const { diffs } = await serve(rung)
      const clones = []
      for (const [i, each] of diffs.entries()) {
        const clone = join(work.path, `clone-${rung}-${i}`)
        await mkdir(clone)
        await cloneIdmapped(each, clone)
        mounted.push(clone)
        clones.push(clone)
      }
      await expectRightFiles(await overlay(clones.reverse()))
    })
  }

  for (const rung of RUNGS) {
    test(`of a whole image (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const dir = join(work.path, `mount-${rung}`)
      await mkdir(dir)
      const flags = ['--mount', rung, '--cert-dir', registry.certDir, '--cache', join(work.path, `cache-${rung}`)]
      agent = await startAgent(work.path, dir, ['mount', reference, dir, ...flags])
      const { found, disagreeing } = await sweep(dir)
      expect(disagreeing).toEqual([])
      for (const { ino } of found) expect(ino).toBeLessThan(2 ** 32)
      await expectRightFiles(dir)
    })
  }
})

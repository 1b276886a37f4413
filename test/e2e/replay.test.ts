// The additional layer store as containers/storage calls it, from Podman 4.3 to 5.4, without an engine: the same calls in the same
// order, at a mount of the agent.
import { constants } from 'node:fs'
import { lstat, mkdir, open, readFile, rmdir, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import type { Agent } from './agent.ts'
import { claim } from './claim.ts'
import { command } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { codeOf, expectUnion, type Stage, setStage } from './stage.ts'

/** open(2) as os.Create does it. */
const CREATE = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC
const GZIP = 2
const TIMEOUT_MS = 300_000

/** What an engine asks a layer by, and what it must find in `info` of layer `at`. */
interface Generation {
  title: string
  flags: string[]
  name(layer: Descriptor): string
  mandatory(stage: Stage, at: number): Record<string, unknown>
}

const GENERATIONS: Generation[] = [
  {
    title: 'Podman 5.1 to 5.4, which ask by index',
    flags: [],
    name: (layer) => layer.annotations[TOC_DIGEST] as string,
    mandatory: ({ image }, at) => ({
      'toc-digest': image.layers[at]?.annotations[TOC_DIGEST],
      flags: { 'expected-layer-diffid': image.diffIds[at] },
    }),
  },
  {
    title: 'Podman up to 5.0, which asks by layer',
    flags: ['--diffid', 'claimed'],
    name: (layer) => layer.digest,
    mandatory: ({ image }, at) => ({ 'diff-digest': image.diffIds[at] }),
  },
]

suite('calls at the additional layer store', lacking(['fusermount3', 'getfattr']), () => {
  let stage: Stage
  let agent: Agent

  beforeAll(async () => {
    stage = await setStage()
  })
  afterEach(async () => {
    stage.registry.faults = []
    await agent.stop()
  })
  afterAll(() => stage?.close())

  const directory = (name: string, reference = stage.reference) =>
    join(stage.root, 'layers', Buffer.from(reference).toString('base64'), name)

  for (const { title, flags, name, mandatory } of GENERATIONS) {
    test(`pull, pull again, run and delete as by ${title}; after a restart and a kill the engine's links lead on`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      agent = await stage.serve(`cache-${flags.length}`, ...flags)
      const { image } = stage
      const paths = image.layers.map((layer) => directory(name(layer)))
      for (const [at, path] of paths.entries()) {
        const info = await lookUp(path)
        // an engine that finds a layer by its blob's digest wants a DiffID with it
        const byBlob = info !== undefined && 'diff-digest' in info ? image.layers[at]?.digest : undefined
        expect(info).toMatchObject({
          ...mandatory(stage, at),
          ...(byBlob === undefined ? {} : { 'compressed-diff-digest': byBlob }),
          'compressed-size': image.layers[at]?.size,
          'diff-size': Number(image.layers[at]?.annotations['io.containers.estargz.uncompressed-size']),
          compression: GZIP,
        })
        expect(Object.keys(info ?? {}).includes('compressed-diff-digest')).toBe(byBlob !== undefined)
      }
      const graph = join(stage.work.path, `graph-${flags.length}`)
      const lower = await Promise.all(paths.map((path, at) => commit(graph, path, `layer${at}`)))
      for (const path of paths) expect(await codeOf(() => rmdir(path))).toBe('ENOENT')
      await expectContainer(lower, graph)

      // again while it is there: once more in use, and let go
      for (const path of paths) {
        expect(await lookUp(path)).toBeDefined()
        expect(await codeOf(() => rmdir(path))).toBe('ENOENT')
      }
      const requests = stage.registry.seen.length
      expect(await agent.stop()).toBe(0)
      agent = await stage.serve(`cache-${flags.length}`, ...flags)
      await expectContainer(lower, graph)

      process.kill(agent.pid, 'SIGKILL')
      await agent.ended
      agent = await stage.serve(`cache-${flags.length}`, ...flags)
      await expectContainer(lower, graph)
      for (const path of paths) expect(await codeOf(() => rmdir(path))).toBe('ENOENT')
      await expectContainer(lower, graph)
      // of the manifest, or of a chunk that was read once
      // it may ask again whether its repository knows of starts, and nobody waits for that
      const aboutStarts = /\/referrers\/|\/manifests\/sha256-|^\/v2\/$/
      expect(stage.registry.seen.slice(requests).filter(({ path }) => !aboutStarts.test(path))).toEqual([])
      expect(agent.log()).toBe('')
    })
  }

  test('deletions and hidden directories are what overlayfs wants, and no more', async () => {
    agent = await stage.serve('cache')
    const path = directory(stage.image.layers[1]?.annotations[TOC_DIGEST] as string)
    await lookUp(path)
    const gone = await lstat(join(path, 'diff/gone'))
    expect([gone.isCharacterDevice(), gone.rdev]).toEqual([true, 0])
    const xattrs = await command('getfattr', ['--absolute-names', '-d', '-m', '-', join(path, 'diff/opaque')])
    expect(xattrs.stdout).toMatch(/^trusted.overlay.opaque="y"$/m)
    expect(xattrs.stdout.match(/overlay/g)).toHaveLength(1)
    expect(await stat(join(path, 'diff'))).toMatchObject({ uid: 0, gid: 0 })
  })

  test('blob is the exact layer; diff1, use and whatever else an engine may look for are not there', async () => {
    agent = await stage.serve('cache')
    for (const { digest, size, annotations } of stage.image.layers) {
      const path = directory(annotations[TOC_DIGEST] as string)
      await lookUp(path)
      expect((await stat(join(path, 'blob'))).size).toBe(size)
      expect(digestOf(await readFile(join(path, 'blob')))).toBe(digest)
      for (const each of ['diff1', 'use', 'additionallayer', 'link']) {
        expect([each, await codeOf(() => stat(join(path, each)))]).toEqual([each, 'ENOENT'])
      }
    }
  })

  test('a layer that the image does not have, an image that the registry does not have, and no names at all are ENOENT', async () => {
    agent = await stage.serve('cache')
    const { digest } = stage.image.layers[0] as Descriptor
    const other = `sha256:${'0'.repeat(64)}`
    const absent = [
      directory(other),
      directory(hex(digest)),
      directory(digest, `${stage.registry.host}/image:none`),
      directory(digest, `${stage.registry.host}/none@${other}`),
      directory(digest, '127.0.0.1:1/image:app'), // where nobody listens
      directory(digest, 'Not A Reference'),
      join(stage.root, 'layers', stage.reference),
    ]
    for (const path of absent) expect([path, await codeOf(() => stat(join(path, 'diff')))]).toEqual([path, 'ENOENT'])
    // and those who ask a second time in one pull do not ask the registry again
    const requests = stage.registry.seen.length
    for (const path of absent) expect(await codeOf(() => stat(join(path, 'info')))).toBe('ENOENT')
    expect(stage.registry.seen.length).toBe(requests)
  })

  test('a layer whose DiffID is another one than its image claims is not there for who would believe it', async () => {
    const { reference, image } = await stage.add('attacker')
    await claim(stage.layout, image.manifestDigest, stage.image.diffIds.slice(0, 1))
    agent = await stage.serve('cache')
    const [layer] = image.layers
    expect(await codeOf(() => stat(directory(layer?.digest as string, reference)))).toBe('ENOENT')
    // on a busy machine the lookup has its answer before the agent knows why
    const left = `${reference}: layer ${layer?.digest} is left to the engine`
    await expect.poll(() => agent.log(), { timeout: 20_000 }).toContain(left)
    const info = await lookUp(directory(layer?.annotations[TOC_DIGEST] as string, reference))
    expect(info).not.toHaveProperty('diff-digest')
  })

  test('a registry that stands still is ENOENT after a while; the layer is there once it goes on', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const { reference, image } = await stage.add('slow')
    agent = await stage.serve('cache')
    const path = directory(image.layers[0]?.annotations[TOC_DIGEST] as string, reference)
    stage.registry.faults = [{ match: /manifests\/slow/, nth: 1, delayMs: 4_000 }]
    expect(await codeOf(() => stat(path))).toBe('ENOENT')
    expect(agent.log()).toContain('no progress for 2000 ms')
    await expect.poll(() => lookUp(path), { interval: 500 }).toBeDefined()
  })

  /** As pulls commit a layer and link it into their own storage. @returns its short name, for overlay options */
  async function commit(graph: string, path: string, id: string): Promise<string> {
    await readFile(join(path, 'info'))
    expect(await use(path)).toBe('ENOENT')
    await mkdir(join(graph, id), { recursive: true })
    await mkdir(join(graph, 'l'), { recursive: true })
    await symlink(join(path, 'diff'), join(graph, id, 'diff'))
    await symlink(`../${id}/diff`, join(graph, 'l', `LINK${id}`))
    return `l/LINK${id}`
  }

  async function expectContainer(lower: readonly string[], graph: string): Promise<void> {
    await using merged = await stage.overlay(lower.toReversed(), graph)
    await expectUnion(merged.path)
  }
})

/** An engine's lookup: any errno of the first three means that the layer is not here. @returns `info` */
async function lookUp(path: string): Promise<Record<string, unknown> | undefined> {
  for (const name of ['diff', 'info', 'blob']) {
    if ((await codeOf(() => stat(join(path, name)))) !== '') return undefined
  }
  expect(await use(path)).toBe('ENOENT')
  return JSON.parse(await readFile(join(path, 'info'), 'utf8'))
}

function use(path: string): Promise<string> {
  return codeOf(async () => (await open(join(path, 'use'), CREATE, 0o666)).close())
}

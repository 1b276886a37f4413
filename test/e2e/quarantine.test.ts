// A layer that is found to lie while it is shown: from then on both doors show nothing of it, without a restart; what runs goes on.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readdir, readFile, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import { type Agent, lazylayer } from './agent.ts'
import { claim, lie } from './claim.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { mountsBelow } from './engines/work-directory.ts'
import { codeOf, expectUnion, type Stage, setStage } from './stage.ts'

const TIMEOUT_MS = 300_000
const LIE = 'evil\n'

interface Entry {
  id: string
  'compressed-diff-digest'?: Digest
}

interface Liar {
  reference: string
  /** Digests of its layer and of that one's index. */
  layer: Digest
  index: Digest
}

interface Index {
  manifests: { digest: Digest; annotations: Record<string, string> }[]
}

suite('a layer that lies', lacking(['fusermount3', 'unshare']), () => {
  let stage: Stage
  let agent: Agent
  let images: string
  let liar: Liar

  beforeAll(async () => {
    stage = await setStage()
    images = join(stage.root, 'images')
    liar = await addLiar('liar')
  })
  afterEach(() => agent.stop())
  afterAll(() => stage?.close())

  const entries = async () => JSON.parse(await readFile(join(images, 'overlay-layers/layers.json'), 'utf8')) as Entry[]
  const help = (reference: string) => stage.help(JSON.stringify({ [reference]: {} }))
  const diffIn = (reference: string, name: Digest) =>
    join(stage.root, 'layers', Buffer.from(reference).toString('base64'), name, 'diff')
  const prove = (reference = liar.reference) =>
    lazylayer(stage.work.path, 'pull', '--prove', reference, '--root', stage.root)

  /** Adds an image of one layer whose file `who` is good, and evil by its index. @param diffIds as it claims them, if not the truth */
  async function addLiar(tag: string, diffIds?: readonly Digest[]): Promise<Liar> {
    const file = (path: string, content: Buffer) => ({ path, type: 'file' as const, content })
    const files = [
      file('who', Buffer.from('good\n')),
      file('other', Buffer.from(LIE)),
      file('large', Buffer.alloc(300_000, 'large')),
      file('tag', Buffer.from(tag)),
    ]
    const made = await writeImage({ dir: stage.layout, tag, layers: [{ kind: 'estargz', entries: files }] })
    await lie(stage.layout, made.manifestDigest, (toc) => {
      const find = (name: string) => toc.entries.find((each) => each.name === name)
      const { offset, chunkDigest, innerOffset = 0 } = find('other') ?? {}
      Object.assign(find('who') ?? {}, { offset, chunkDigest, innerOffset })
    })
    if (diffIds !== undefined) await claim(stage.layout, await manifestOf(tag), diffIds)
    const manifest = await readFile(join(stage.layout, 'blobs/sha256', hex(await manifestOf(tag))), 'utf8')
    const [layer] = JSON.parse(manifest).layers
    return {
      reference: `${stage.registry.host}/image:${tag}`,
      layer: layer.digest,
      index: layer.annotations[TOC_DIGEST],
    }
  }

  async function manifestOf(tag: string): Promise<Digest> {
    const { manifests } = JSON.parse(await readFile(join(stage.layout, 'index.json'), 'utf8')) as Index
    return manifests.find(({ annotations }) => Object.values(annotations).includes(tag))?.digest as Digest // it was written
  }

  /** A directory from which a path with colons has a name without: those end a name to overlayfs. */
  async function named(path: string): Promise<string> {
    const dir = await mkdtemp(join(stage.work.path, 'link-'))
    await symlink(path, join(dir, '0'))
    return dir
  }

  /** What a reader sees of a path, again and again, until it is told to end: each thing once in a row. */
  function watch(path: string): () => Promise<string[]> {
    const seen: string[] = []
    let ended = false
    const watching = (async () => {
      while (!ended) {
        const now = await readFile(path, 'utf8').catch(({ code }) => code)
        if (now !== seen.at(-1)) seen.push(now)
      }
    })()
    return async () => {
      ended = true
      await watching
      return seen
    }
  }

  for (const [rung, ...flags] of [
    ['erofs'],
    ['erofs', '--diffid', 'claimed'],
    ['fuse', '--mount', 'fuse', '--diffid', 'claimed'],
  ]) {
    test(`is gone from both doors when the verdict falls, and what runs goes on (${[rung, ...flags].join(' ')})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      const claimed = flags.includes('claimed')
      agent = await stage.serve(`cache-${rung}-${claimed}`, ...flags)
      expect((await agent.status()).mount).toBe(rung)
      await help(stage.reference)
      const others = (await entries()).map(({ id }) => id)
      await help(liar.reference)
      const listed = await entries()
      const { id = '' } = listed.find((each) => !others.includes(each.id)) ?? {}
      const diff = join(images, 'overlay', id, 'diff')
      const dialects = [liar.index, ...(claimed ? [liar.layer] : [])].map((each) => diffIn(liar.reference, each))
      for (const each of dialects) {
        expect(await readFile(join(each, 'who'), 'utf8')).toBe(LIE)
        await readFile(join(each, '../info')) // waits for the mount
      }
      expect(await readFile(join(diff, 'who'), 'utf8')).toBe(LIE)
      const honest = diffIn(stage.reference, stage.image.layers[0]?.annotations[TOC_DIGEST] as Digest)
      expect(await readFile(join(honest, 'dir/file'), 'utf8')).toBe('base\n')

      // those in a namespace of its own are copies: ending ours does not end them
      const engine = await startIsolated()
      const covers = async (pid: number | 'self' = 'self') =>
        (await mountsBelow(stage.root, pid)).filter((each) => [diff, ...dialects].includes(each))
      for (const pid of ['self', engine.pid] as const) {
        expect(await covers(pid)).toHaveLength(rung === 'fuse' ? 0 : 1 + dialects.length)
      }

      const [one, two] = [await named(diff), await named(dialects[0] as string)]
      const before = [await stage.overlay(['0'], one), await stage.overlay(['0'], two)]
      const watched = [diff, ...dialects].map((each) => watch(join(each, 'who')))
      try {
        const text = await readFile(join(images, 'overlay-layers/layers.json'), 'utf8')
        const held = await open(join(diff, 'who'))
        // others look and list meanwhile
        const [proving] = await Promise.all([prove(), help(liar.reference), help(stage.reference)])
        expect([proving.code, proving.stdout]).toEqual([1, expect.stringContaining('quarantined')])

        // gone, at once
        expect((await stat(diff)).isFile()).toBe(true)
        expect((await stat(diff)).size).toBe(0)
        for (const each of dialects) {
          expect((await stat(each)).isFile()).toBe(true)
          for (const name of ['info', 'blob', 'use']) {
            expect(await codeOf(() => stat(join(each, '..', name)))).toBe('ENOENT')
          }
          expect(await readdir(join(each, '..'))).toEqual(['diff'])
        }
        for (const dir of [one, two]) await expect(stage.overlay(['0'], dir)).rejects.toThrow(/exit code 32/)
        expect(await codeOf(() => readFile(join(images, 'overlay-layers', `${id}.tar-split.gz`)))).toBe('EIO')

        // listed as ever; the others as ever
        expect(await readFile(join(images, 'overlay-layers/layers.json'), 'utf8')).toBe(text)
        expect((await readdir(join(images, 'overlay'))).sort()).toEqual([...listed.map((each) => each.id), 'l'].sort())
        expect(await readFile(join(honest, 'dir/file'), 'utf8')).toBe('base\n')
        const chain = others.map((each) => `${each}/diff`).toReversed()
        await using merged = await stage.overlay(chain, join(images, 'overlay'))
        await expectUnion(merged.path)

        // asked again, by whoever
        await help(liar.reference)
        expect((await prove()).code).toBe(1)
        for (const each of [diff, ...dialects]) expect((await stat(each)).isFile()).toBe(true)
        // by a name that it was not shown by, it is not there
        const other = liar.reference.replace(':liar', `@${await manifestOf('liar')}`)
        for (let i = 0; i < 3; i++) expect(await codeOf(() => stat(diffIn(other, liar.index)))).toBe('ENOENT')

        // what runs goes on, also with what it did not read yet
        for (const { path } of before) {
          expect(await readFile(join(path, 'who'), 'utf8')).toBe(LIE)
          expect(await readFile(join(path, 'large'), 'utf8')).toBe('large'.repeat(60_000))
          expect((await readdir(path)).sort()).toContain('other')
        }
        expect((await held.readFile('utf8')).toString()).toBe(LIE)
        await held.close()

        const { counters, mounts } = await agent.status()
        expect(counters.quarantined).toBe(1)
        for (const pid of ['self', engine.pid] as const) await expect.poll(() => covers(pid)).toEqual([])
        expect(mounts.filter(({ dir }) => [diff, ...dialects].includes(dir))).toEqual([])
      } finally {
        const seen = await Promise.all(watched.map((end) => end()))
        for (const each of before) await each[Symbol.asyncDispose]()
        await engine.end()
        // ENOENT: between the directory and the file; never what it was again
        for (const each of seen) expect(each.filter((what) => what !== 'ENOENT')).toEqual([LIE, 'ENOTDIR'])
      }
      expect(await agent.stop()).toBe(0)
      expect(await mountsBelow(stage.root)).toEqual([])
      expect(agent.log()).not.toMatch(/TypeError|is busy|stays mounted/)
      await expect.poll(() => agent.log()).toMatch(/cannot be put together: it is quarantined/)
      expect(agent.log().match(/layer .* is left to the engine: .* is quarantined/g)).toHaveLength(1)

      // and after a restart as before
      agent = await stage.serve(`cache-${rung}-${claimed}`, ...flags)
      for (const each of [diff, ...dialects]) expect((await stat(each)).isFile()).toBe(true)
      for (const each of dialects) expect(await codeOf(() => stat(join(each, '../info')))).toBe('ENOENT')
    })
  }

  test('does not keep the name that it claimed from whoever it belongs to', { timeout: TIMEOUT_MS }, async () => {
    const { reference, image } = await stage.add('victim')
    const stolen = await addLiar('thief', image.diffIds)
    agent = await stage.serve('cache-stolen', '--diffid', 'claimed')
    await help(stolen.reference)
    const [{ id = '' } = {}] = await entries()
    expect(id).toBe(hex(image.diffIds[0] as Digest))
    const diff = join(images, 'overlay', id, 'diff')
    expect(await readFile(join(diff, 'who'), 'utf8')).toBe(LIE)
    await help(reference)
    await expect.poll(() => agent.log()).toMatch(/image:victim: layers from .* are left to the engine: .* its blob is/)
    expect((await prove(stolen.reference)).code).toBe(1)
    expect((await stat(diff)).isFile()).toBe(true)
    await help(reference)
    for (let life = 0; life < 2; life++) {
      expect((await entries()).map((each) => [each.id, each['compressed-diff-digest']])).toEqual([
        [id, image.layers[0]?.digest],
      ])
      expect(await readFile(join(diff, 'name'), 'utf8')).toBe('victim')
      expect(await codeOf(() => stat(join(diff, 'who')))).toBe('ENOENT')
      {
        await using merged = await stage.overlay([`${id}/diff`], join(images, 'overlay'))
        expect(await readdir(merged.path)).toContain('name')
      }
      expect((await mountsBelow(stage.root)).filter((each) => each === diff)).toHaveLength(1)
      await agent.stop()
      expect(await mountsBelow(stage.root)).toEqual([])
      agent = await stage.serve('cache-stolen', '--diffid', 'claimed')
    }
  })
})

/** A process that sees mounts as they are now, whatever comes and goes in this namespace. */
async function startIsolated(): Promise<{ pid: number; end(): Promise<void> }> {
  const child = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', 'echo ready; read line'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  await once(child.stdout, 'data')
  return {
    pid: child.pid as number, // it said something
    async end() {
      child.stdin.end()
      await exited
    },
  }
}

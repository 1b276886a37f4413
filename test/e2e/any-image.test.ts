// Images of any kind, shown whole: lazy layers of all formats, ordinary ones between them, Docker's manifests; and nothing but an error
// where nothing may be fetched whole.
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import { type Descriptor, DOCKER_MANIFEST } from '../../src/image/manifest.ts'
import { RUNGS } from '../../src/mount/ladder.ts'
import { OCI_LAYER, pattern } from '../fake/image.ts'
import { item, stargz } from '../format/estargz/stargz-craft.ts'
import { archive, member } from '../format/tar/tar-craft.ts'
import { craft, ZSTD_LAYER } from '../format/zstd-chunked/zstd-craft.ts'
import { lazylayer, startAgent } from './agent.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type MadeLayer, nydusLayers, writeLayers } from './nydus-image.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 120_000
/** What a lazy mount leaves in the registry. */
const BALLAST = pattern(5 << 20)

/** An ordinary layer with these files. */
function ordinary(files: Record<string, string>, mediaType = OCI_LAYER): MadeLayer {
  const tar = archive(...Object.entries(files).map(([name, text]) => member({ name }, text)))
  const compressed = mediaType === ZSTD_LAYER ? zstdCompressSync(tar) : mediaType.endsWith('zip') ? gzipSync(tar) : tar
  const bytes = new Uint8Array(compressed)
  const descriptor: Descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length, annotations: {} }
  return { descriptor, bytes, diffId: digestOf(tar) }
}

const lazy = (
  { blob, descriptor }: { blob: Uint8Array; descriptor: Descriptor },
  diffId = digestOf(blob),
): MadeLayer => ({
  descriptor,
  bytes: blob,
  diffId,
})

suite('an image of any kind', lacking(['fusermount3']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  const mixed: MadeLayer[] = []
  const whole = [
    ordinary({ 'from-gzip': 'gzip\n', '.wh.gone': '' }),
    ordinary({ 'from-tar': 'tar\n' }, 'application/vnd.oci.image.layer.v1.tar'),
  ]
  const plain = [...whole, ordinary({ 'from-zstd': 'zstd\n', '.wh.from-tar': '' }, ZSTD_LAYER)]

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const file = (path: string, content: Uint8Array) => ({ path, type: 'file' as const, content })
    const nydus = await nydusLayers([
      file('from-nydus', Buffer.from('nydus\n')),
      file('gone', Buffer.from('hidden')),
      file('ballast', BALLAST),
    ])
    const zstd = craft([item({ name: 'from-zstd-chunked' }, 'chunked\n')], { family: 'containers' })
    const estargz = stargz([item({ name: 'from-estargz' }, 'estargz\n')], { ended: true })
    mixed.push(...nydus, lazy(zstd), ...whole, lazy(estargz))
    await writeLayers(layout, 'mixed', mixed)
    await writeLayers(layout, 'plain', plain)
    await writeLayers(
      layout,
      'docker',
      [ordinary({ a: 'one\n' }, 'application/vnd.docker.image.rootfs.diff.tar.gzip')],
      {
        mediaType: DOCKER_MANIFEST,
      },
    )
    await writeLayers(layout, 'docker-nydus', nydus, { mediaType: DOCKER_MANIFEST })
    registry = await serveLayout(layout, work.path)
  }, TIMEOUT_MS)
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  const image = (tag: string) => `${registry.host}/images:${tag}`
  const flags = (cache: string) => ['--cache', join(work.path, `cache-${cache}`), '--cert-dir', registry.certDir]
  /** Ranges of a layer that were asked for since the last look. */
  const asked = (layers: readonly MadeLayer[]) =>
    registry.seen.filter(({ path }) => layers.some(({ descriptor }) => path.endsWith(hex(descriptor.digest))))

  for (const rung of RUNGS) {
    test(`of several formats, and of ordinary layers among them, is one tree (${rung})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      const dir = join(work.path, rung)
      await mkdir(dir)
      registry.seen.length = 0
      const agent = await startAgent(work.path, dir, ['mount', image('mixed'), dir, '--mount', rung, ...flags(rung)])
      try {
        const size = whole.reduce((sum, { descriptor }) => sum + descriptor.size, 0)
        expect(agent.log()).toContain(`2 of 7 layers are fetched whole, ${(size / 1000).toFixed(1)} kB: `)
        const names = (await readdir(dir)).filter((each) => each.startsWith('from-'))
        const kinds = ['estargz', 'gzip', 'nydus', 'tar', 'zstd-chunked']
        expect(names.sort()).toEqual(kinds.map((each) => `from-${each}`))
        const texts = await Promise.all(names.map((each) => readFile(join(dir, each), 'utf8')))
        expect(texts).toEqual(['estargz\n', 'gzip\n', 'nydus\n', 'tar\n', 'chunked\n'])
        await expect(readFile(join(dir, 'gone'))).rejects.toMatchObject({ code: 'ENOENT' })
        expect((await agent.status()).bytes.fetched).toBeLessThan(BALLAST.length / 2)
        expect(asked(whole).filter(({ method }) => method === 'GET')).toHaveLength(2)
        expect(digestOf(await readFile(join(dir, 'ballast')))).toBe(digestOf(BALLAST))
      } finally {
        await agent.stop()
      }
    })
  }

  test('that has no lazy layer at all is shown, whatever its manifest and its compression', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const say = (command: string, tag: string, ...args: string[]) =>
      lazylayer(work.path, command, image(tag), ...args, ...flags('plain'))
    const listed = await say('ls', 'plain')
    expect(listed).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/: 3 of 3 layers are fetched whole, .* kB: /),
    })
    expect(
      listed.stdout
        .trim()
        .split('\n')
        .map((line) => line.split(' ').at(-1)),
    ).toEqual(['NAME', 'from-gzip', 'from-zstd'])
    // what was fetched once is there
    expect(await say('cat', 'plain', 'from-zstd')).toMatchObject({ code: 0, stdout: 'zstd\n', stderr: '' })
    expect(await say('cat', 'plain', 'from-gzip', '--require-lazy')).toMatchObject({ code: 0, stdout: 'gzip\n' })
    expect(await say('cat', 'docker', 'a')).toMatchObject({ code: 0, stdout: 'one\n' })
    expect(await say('cat', 'docker-nydus', 'from-nydus')).toMatchObject({ code: 0, stdout: 'nydus\n', stderr: '' })
  })

  test('is an error where it must be lazy and is not, before a byte of the layers in question is fetched', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const dir = join(work.path, 'never')
    await mkdir(dir)
    const refuse = (command: string, ...args: string[]) =>
      lazylayer(work.path, command, image('mixed'), ...args, '--require-lazy', ...flags('lazily'))
    registry.seen.length = 0
    for (const ran of [refuse('mount', dir), refuse('ls'), refuse('cat', 'from-nydus')]) {
      const { code, stdout, stderr } = await ran
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
      expect(stderr).toContain(`${image('mixed')} has layers that cannot be served lazily`)
      for (const { descriptor } of whole) expect(stderr).toContain(descriptor.digest)
      expect(stderr).toMatch(/no eStargz TOC digest.*\n {2}try: .*\n$/s)
    }
    const root = join(work.path, 'store')
    const agent = await startAgent(work.path, root, ['serve', root, '--diffid', 'claimed', ...flags('served')])
    try {
      const pulled = await lazylayer(work.path, 'pull', image('mixed'), '--root', root, '--require-lazy')
      expect(pulled).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('cannot be served lazily') })
    } finally {
      await agent.stop()
    }
    expect(asked(mixed).length).toBeGreaterThan(0)
    expect(asked(whole)).toEqual([])
  })
})

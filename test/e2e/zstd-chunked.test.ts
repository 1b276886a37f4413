// zstd:chunked through both doors: by the index that engines ask by, proven, saved as it was; as its writers make it, Podman among them.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { item } from '../format/estargz/stargz-craft.ts'
import { archive, member } from '../format/tar/tar-craft.ts'
import { type Crafted, craft, type Family } from '../format/zstd-chunked/zstd-craft.ts'
import { lazylayer } from './agent.ts'
import { writeCrafted } from './crafted-layout.ts'
import { byEngine, type Door, type EngineStore, makeStore } from './engine-store.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { type Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'

const ENGINE_TIMEOUT_MS = 600_000

/** Zeros within it that are no whole blocks, and at its end. */
const SPARSE = Buffer.concat([Buffer.from('begin\n'), Buffer.alloc(100_000), Buffer.from('end\n'), Buffer.alloc(5000)])
const ITEMS = [
  item({ name: 'who' }, 'good\n'),
  item({ name: 'large' }, 'large\n'.repeat(50_000)),
  item({ name: 'sparse' }, SPARSE),
  item({ name: 'zeros' }, Buffer.alloc(10_000)),
  item({ name: 'd/', type: 'dir' }),
]
const FAMILIES: readonly Family[] = ['containers', 'stargz']
const LAYERS = new Map(
  FAMILIES.map((family): [string, Crafted] => [family, craft(ITEMS, { family, chunkSize: 65536 })]),
)

/** What `ls`, `cat who`, and digests of the files say of the tree. */
const SAYS = `d\nlarge\nsparse\nwho\nzeros\ngood\n${['large', 'sparse', 'zeros'].map(sumOf).join('')}`

function sumOf(name: string): string {
  const contents = ITEMS.find(({ toc }) => toc.name === name)?.contents ?? new Uint8Array()
  return `${hex(digestOf(contents))}  ${name}\n`
}

const IMAGES = Object.fromEntries(
  [...LAYERS].map(
    ([
      tag,
      {
        blob,
        tar,
        descriptor: { mediaType, annotations },
      },
    ]) => [
      tag,
      { layers: [{ blob, tar, mediaType, annotations }], config: { os: 'linux', architecture: 'amd64', author: tag } },
    ],
  ),
)

suite('zstd:chunked', lacking([...REGISTRY_PROGRAMS, 'fusermount3']), () => {
  let store: EngineStore

  beforeAll(async () => {
    store = await makeStore((work) => writeCrafted(work, IMAGES))
    await store.installHelper()
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const name = (tag: string) => `${store.registry.host}/${tag}:${tag}`

  /** Of an image that is lazy. */
  async function layersOf(tag: string): Promise<string[]> {
    const args = ['inspect', `docker://${name(tag)}`, '--format', 'json', '--cert-dir', store.registry.certDir]
    const { stdout } = await lazylayer(store.work.path, ...args)
    const { layers } = JSON.parse(stdout) as { layers: { digest: string; format: string | null }[] }
    expect(layers.map(({ format }) => format)).toEqual(['zstd:chunked'])
    return layers.map(({ digest }) => digest)
  }

  /** Pulls it. @returns the layers that the engine fetched itself */
  async function pulled(podman: Podman, tag: string): Promise<string[]> {
    await store.registry.clear()
    await podman.succeed(['pull', '--quiet', name(tag)])
    const blobs = byEngine(await store.registry.log()).filter(({ kind }) => kind === 'blob')
    const layers = await layersOf(tag)
    return blobs.map(({ uri }) => uri.split('/').pop() as string).filter((digest) => layers.includes(digest))
  }

  async function contents(podman: Podman, tag: string): Promise<string> {
    const mounted = await podman.succeed(['mount', await podman.succeed(['create', name(tag), '/none'])])
    const { stdout } = await podman.exec([
      'sh',
      '-c',
      `cd ${mounted} && ls -A && cat who && sha256sum large sparse zeros`,
    ])
    return stdout
  }

  /** DiffIDs of the layers that the engine saves. */
  async function saved(podman: Podman, tag: string): Promise<Digest[]> {
    const folder = join(podman.path, 'tmp', `saved-${tag}`)
    await podman.succeed(['save', '--format', 'oci-dir', '--output', folder, name(tag)])
    const read = (digest: Digest) => readFile(join(folder, 'blobs/sha256', hex(digest)))
    const { manifests } = JSON.parse(await readFile(join(folder, 'index.json'), 'utf8'))
    const { layers } = JSON.parse((await read(manifests[0].digest)).toString())
    return await Promise.all(
      layers.map(async ({ digest }: { digest: Digest }) => {
        const bytes = await read(digest)
        return digestOf(bytes[0] === 0x1f ? gunzipSync(bytes) : bytes)
      }),
    )
  }

  for (const door of ['layers', 'images'] as const satisfies Door[]) {
    suite(`Podman 5.4.2, ${door}`, podmanLacks('trixie'), () => {
      test('finds layers of both families by their indexes, unread, shows their files and saves their tars', {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${door}`)
        await using podman = await store.startEngine('trixie', door)
        for (const [tag, { tar }] of LAYERS) {
          expect(await pulled(podman, tag)).toEqual([])
          expect(await contents(podman, tag)).toBe(SAYS)
          expect(await saved(podman, tag)).toEqual([digestOf(tar)])
        }
      })
    })
  }

  suite('Podman 4.3.1, images', podmanLacks('debian12'), () => {
    test('finds proven layers of both families', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const agent = await store.serve('cache-proven')
      await using podman = await store.startEngine('debian12', 'images')
      for (const [tag, { tar }] of LAYERS) {
        const told = await lazylayer(store.work.path, 'pull', '--prove', name(tag), '--root', store.root)
        expect(told).toMatchObject({ code: 0, stdout: `${name(tag)}: 1 of 1 layer listed (1 by DiffID)\n` })
        expect(await pulled(podman, tag)).toEqual([])
        expect(await contents(podman, tag)).toBe(SAYS)
        expect(await saved(podman, tag)).toEqual([digestOf(tar)])
      }
      expect(agent.log()).not.toContain('quarantined')
    })
  })

  suite('what Podman 5.4.2 pushes', podmanLacks('trixie'), () => {
    test('is found by its index, and is what its tar says', {
      timeout: ENGINE_TIMEOUT_MS,
    }, async () => {
      const tar = archive(...ITEMS.slice(0, 4).map(({ toc, contents }) => member({ name: `${toc.name}` }, contents)))
      await using podman = await store.startEngine('trixie', 'images')
      await writeFile(join(podman.path, 'tmp/own.tar'), tar)
      await podman.succeed(['import', join(podman.path, 'tmp/own.tar'), name('own')])
      await podman.succeed(['push', '--compression-format', 'zstd:chunked', name('own')])
      await podman.succeed(['rmi', '--all', '--force'])
      await store.serve('cache-own')
      expect(await pulled(podman, 'own')).toEqual([])
      expect(await contents(podman, 'own')).toBe(SAYS.replace('d\n', ''))
      expect(await saved(podman, 'own')).toEqual([digestOf(tar)])
    })
  })
})

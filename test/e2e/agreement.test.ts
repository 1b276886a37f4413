// What `explain` says, what `lazylayer pull` lists and what an engine then fetches itself: the same, for each image and each mode. Engines
// take turns, an image of ours is shown in two modes, and every second of other tools in one; every engine and all images in all modes with
//
//   LAZYLAYER_TESTS=all npx vitest run test/e2e/agreement.test.ts
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import type { Digest } from '../../src/image/digest.ts'
import { type As, lazylayerAs, startAgent } from './agent.ts'
import { asSchema2, claim, lie } from './claim.ts'
import { lacking, samples } from './engines/needs.ts'
import { Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { ALL } from './sample.ts'

const TIMEOUT_MS = 580_000

/** As `serve` and `explain` are given them. */
const MODES = {
  proven: [],
  signed: ['--diffid', 'signed'],
  claimed: ['--diffid', 'claimed'],
  'diffid-only': ['--diffid-only'],
} as const

const MODE_NAMES = Object.keys(MODES)

/** Which column of `explain` is about an engine that looks through these doors. */
const ENGINES = [
  { flavour: 'debian12', era: 'layer', doors: ['layers', 'images'] },
  { flavour: 'trixie', era: 'image', doors: ['images'] },
] as const

interface Image {
  name: string
  tag: string
  registry: LayoutRegistry
  /** Of another tool. */
  sample: boolean
}

interface Explained {
  layers: {
    digest: Digest
    ways: Record<'layer' | 'index' | 'image', { door?: string; identity?: string; fix?: string }>
  }[]
}

const file = (path: string, text: string): SourceEntry => ({ path, type: 'file', content: Buffer.from(text) })
const lazy = (...entries: SourceEntry[]) => ({ kind: 'estargz' as const, entries })
const plain = (...entries: SourceEntry[]) => ({ kind: 'gzip' as const, entries })

const given = samples()

suite('explain, pull and engines', lacking(['fusermount3', 'unshare', 'nsenter']), () => {
  let work: WorkDirectory
  /** Each image has a registry of its own, so that what is asked for is told apart. */
  const images: Image[] = []

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const at = async (name: string) => {
      await mkdir(join(work.path, name))
      return join(work.path, name, 'layout')
    }
    const add = async (name: string, layout: string, tag: string, sample = false) => {
      const dir = join(work.path, `registry-${images.length}`)
      await mkdir(dir)
      images.push({ name, tag, registry: await serveLayout(layout, dir), sample })
    }
    const make = async (name: string, layers: Parameters<typeof writeImage>[0]['layers']) => {
      const dir = await at(name)
      const image = await writeImage({ dir, tag: 'a', layers, config: { Labels: { name } } })
      return { dir, image }
    }
    const all = await make('lazy', [lazy(file('a', 'lazy a')), lazy(file('b', 'lazy b'))])
    await add('lazy', all.dir, 'a')
    const mixed = await make('mixed', [
      lazy(file('a', 'mixed a')),
      plain(file('b', 'mixed b')),
      lazy(file('c', 'mixed c')),
    ])
    await add('mixed', mixed.dir, 'a')
    const eager = await make('plain', [plain(file('a', 'plain a'))])
    await add('plain', eager.dir, 'a')
    const docker = await make('docker', [lazy(file('a', 'docker a'))])
    await asSchema2(docker.dir, `${docker.dir}-2`)
    await add('schema 2', `${docker.dir}-2`, 'a')
    const liar = await make('liar', [lazy(file('a', 'liar a'))])
    await lie(liar.dir, liar.image.manifestDigest, ({ entries }) => {
      for (const each of entries) if (each.name === 'a') each.mode = 0o777
    })
    await add('an index that lies', liar.dir, 'a')
    const broken = await make('broken', [lazy(file('a', 'broken a'))])
    await lie(broken.dir, broken.image.manifestDigest, ({ entries }) => {
      for (const each of entries) if (each.name === 'a') each.type = 'nonsense'
    })
    await add('an index that cannot be parsed', broken.dir, 'a')
    const false_ = await make('false', [lazy(file('a', 'false a'))])
    await claim(false_.dir, false_.image.manifestDigest, [`sha256:${'0'.repeat(64)}`])
    await add('a DiffID that is false', false_.dir, 'a')
    if ('path' in given) {
      await cp(join(given.path, 'samples/oci'), join(work.path, 'samples'), { recursive: true })
      const index = JSON.parse(await readFile(join(work.path, 'samples/index.json'), 'utf8')) // a fixture
      for (const { annotations } of index.manifests) {
        const tag = annotations?.['org.opencontainers.image.ref.name']
        if (tag !== undefined) await add(`sample ${tag}`, join(work.path, 'samples'), tag, true)
      }
    }
    const containers = join(work.path, 'home/.config/containers')
    await mkdir(containers, { recursive: true })
    await writeFile(join(containers, 'policy.json'), JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }))
  }, TIMEOUT_MS)
  afterAll(async () => {
    for (const { registry } of images) await registry.close()
    await work?.remove()
  })

  const as = (): As => ({
    env: { ...process.env, HOME: join(work.path, 'home'), RUNTIME_DIRECTORY: join(work.path, 'run') },
    sockets: join(work.path, 'run'),
  })

  const lacks = ENGINES.map(({ flavour }) => ({ flavour, why: podmanLacks(flavour) }))
  for (const { flavour, why } of lacks) {
    if (why !== undefined) test.skip(`${flavour} (${why})`, () => undefined)
  }
  const engines = ENGINES.filter(({ flavour }) =>
    lacks.every((each) => each.flavour !== flavour || each.why === undefined),
  )

  // one agent and one `explain` a mode, for all engines: what they say does not depend on who pulls then
  for (const [mode, flags] of engines.length === 0 ? [] : Object.entries(MODES)) {
    test(mode, { timeout: TIMEOUT_MS }, async () => {
      const dir = join(work.path, mode)
      const root = join(dir, 'store')
      await mkdir(dir)
      const certificates = join(dir, 'certificates')
      await mkdir(certificates)
      const cert = images.map(({ registry }) => registry.cert)[0] as string // all fakes of a file have one
      await writeFile(join(certificates, 'ca.crt'), cert)
      const args = ['serve', root, '--cache', join(dir, 'cache'), '--cert-dir', certificates, ...flags]
      const agent = await startAgent(work.path, root, args, as())
      try {
        await using podmans = new AsyncDisposableStack()
        const trust = images.map(({ registry: { host } }) => ({ host, caFile: join(certificates, 'ca.crt') }))
        const pulling = []
        for (const { flavour, era, doors } of engines) {
          const additionalLayerStores = (doors as readonly string[]).includes('layers')
            ? [`${join(root, 'layers')}:ref`]
            : []
          const additionalImageStores = [join(root, 'images')]
          const podman = await Podman.start({
            flavour,
            work: work.path,
            trust,
            additionalLayerStores,
            additionalImageStores,
          })
          pulling.push({ flavour, era, podman: podmans.use(podman) })
        }
        const told: unknown[] = []
        const wanted: unknown[] = []
        const place = MODE_NAMES.indexOf(mode)
        const some = [
          ...images.filter(({ sample }) => !sample).filter((_, i) => i % 2 === place % 2),
          ...images.filter(({ sample }) => sample).filter((_, i) => i % (2 * MODE_NAMES.length) === place),
        ]
        for (const [i, { name, tag, registry }] of (ALL ? images : some).entries()) {
          const reference = `${registry.host}/image:${tag}`
          const pulled = await lazylayerAs(as(), 'pull', reference, '--root', root)
          const explain = ['explain', reference, '--root', root, '--format', 'json', '--cert-dir', certificates]
          const { stdout, stderr } = await lazylayerAs(as(), ...explain, ...flags)
          if (stdout === '') {
            // an image that cannot be resolved: neither can pull, and nobody promises anything
            expect(pulled.code, `${name}: ${stderr}${pulled.stdout}`).toBe(1)
            continue
          }
          const { layers } = JSON.parse(stdout) as Explained
          told.push({
            name,
            listed: /: (\d+) of \d+ layers? listed/.exec(pulled.stdout)?.[1],
            code: pulled.code,
            // nobody is sent back to what has just been done
            advised: layers.filter(({ ways }) => ways.image.fix?.includes('lazylayer pull IMAGE')).length,
          })
          wanted.push({
            name,
            listed: String(layers.filter(({ ways }) => ways.image.door === 'images').length),
            code: layers.some(({ ways }) => ways.image.door !== 'images') ? 1 : 0,
            advised: 0,
          })
          const turn = (i + MODE_NAMES.indexOf(mode)) % pulling.length
          for (const { flavour, era, podman } of ALL ? pulling : pulling.slice(turn, turn + 1)) {
            registry.seen.length = 0
            const engine = await podman.run(['pull', '--quiet', reference])
            const asked = registry.seen.filter(
              ({ kind, method, header }) => kind === 'blob' && method === 'GET' && header('user-agent') !== 'lazylayer',
            )
            const fetched = layers.filter(({ digest }) => asked.some(({ path }) => path.endsWith(digest)))
            const byEngine = layers.filter(({ ways }) => ways[era].door === undefined)
            const isTaken = engine.code === 0
            told.push({ name, flavour, fetched: isTaken ? fetched.map(({ digest }) => digest) : 'refused' })
            wanted.push({ name, flavour, fetched: isTaken ? byEngine.map(({ digest }) => digest) : 'refused' })
          }
        }
        expect(told).toEqual(wanted)
      } finally {
        await agent.stop()
      }
    })
  }
})

// The second door: engines find layers listed in an additional image store, by TOC identity, or by DiffID where claims are believed.
import { chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { lacking, REGISTRY_PROGRAMS, samples } from './engines/needs.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import { type DockerRegistry, type Request, startDockerRegistry, tally } from './engines/registry.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'

const ENGINE_TIMEOUT_MS = 600_000
const images = samples()
const reason = 'lacking' in images ? images.lacking : lacking([...REGISTRY_PROGRAMS, 'fusermount3'])
/** The config's digest, which is the ID of the image where its layers bear their DiffIDs. */
const IMAGE_ID = 'd8b0193caf556c57e2260a8f21ca54f6058b8ba801a60a0cde4a7b98fb976c1c'
const HELLO = 'hello from flask\n'
const HELPER = fileURLToPath(new URL('../../src/cli/auth-helper.js', import.meta.url))

suite('Podman over the additional image store', reason, () => {
  let work: WorkDirectory
  let registry: DockerRegistry
  let agent: Agent | undefined
  let image: string
  let root: string
  let helper: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await startDockerRegistry({ dir: work.path })
    await registry.pushLayout(join('path' in images ? images.path : '', 'images/py-esgz'), 'py', 'py')
    image = `${registry.host}/py:py`
    root = join(work.path, 'store')
    // visible in an engine's own root, which has no Node
    const bin = join(work.path, 'bin')
    await mkdir(bin)
    await chmod(work.path, 0o755)
    await copyFile(process.execPath, join(bin, 'node'))
    await copyFile(HELPER, join(bin, 'auth-helper.js'))
    await writeFile(join(bin, 'package.json'), '{"type": "module"}')
    helper = join(bin, 'helper')
    const told = `echo ran >>${bin}/told`
    await writeFile(helper, `#!/bin/sh\n${told}\nLAZYLAYER_ROOT=${root} exec ${bin}/node ${bin}/auth-helper.js\n`, {
      mode: 0o755,
    })
  })

  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })

  afterAll(async () => {
    await registry?.stop()
    await work?.remove()
  })

  async function serve(cache: string, ...more: string[]): Promise<Agent> {
    const args = ['serve', root, '--cache', join(work.path, cache), '--cert-dir', registry.certDir, ...more]
    agent = await startAgent(work.path, root, args)
    return agent
  }

  function startPodman(
    flavour: Flavour,
    trust = [registry],
    additionalLayerStores: readonly string[] = [],
  ): Promise<Podman> {
    return Podman.start({
      flavour,
      work: work.path,
      trust,
      additionalLayerStores,
      additionalImageStores: [join(root, 'images')],
      registriesConf: `additional-layer-store-auth-helper = "${helper}"\n`,
    })
  }

  /** As containers whose users are mapped need it: they reach what they are made of by these users' rights. */
  async function openToAll(podman: Podman): Promise<void> {
    for (const each of ['', 'tmp', 'graph', 'run']) await chmod(join(podman.path, each), 0o755)
  }

  /** Pulls `py`; @returns the engine's own requests for blobs */
  async function pull(podman: Podman): Promise<{ id: string; blobs: string[] }> {
    await registry.clear()
    const id = await podman.succeed(['pull', '--quiet', image])
    return { id, blobs: byEngine(await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : [])) }
  }

  const CONFIG = `/v2/py/blobs/sha256:${IMAGE_ID}`

  for (const [flavour, version] of [
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(`${version} by TOC identity`, podmanLacks(flavour), () => {
      test(`Podman ${version} pulls no layer, again after rmi, and runs it after a restart without a request`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await serve(`cache-${flavour}`)
        await using podman = await startPodman(flavour)
        const first = await pull(podman)
        expect(first.blobs).toEqual([CONFIG])
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: HELLO })
        expect((await mountsBelow(join(root, 'images'))).length).toBe(2)
        const [listed] = JSON.parse(await podman.succeed(['images', '--no-trunc', '--format', 'json'])) as {
          Id: string
          Size: number
        }[]
        expect(listed?.Id).toBe(first.id)
        expect(listed?.Size).toBeGreaterThan(150_000_000)

        await podman.succeed(['rmi', image])
        expect(await pull(podman)).toEqual(first)
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
        const container = (await podman.container('create', [image])).stdout.trim()

        expect(await agent?.stop()).toBe(0)
        await serve(`cache-${flavour}`)
        await registry.clear()
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
        // what was made before has the same layers
        expect((await podman.run(['start', '--attach', container])).stdout).toBe(HELLO)
        await podman.succeed(['rm', container])
        const again = await registry.log()
        expect(byEngine(again)).toEqual([])
        // a chunk or two that happened not to be read before
        expect(tally(again).all.bytes).toBeLessThan(100_000)
      })

      test(`Podman ${version} works when the agent is stopped, and pulls what it needs`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await serve(`cache-${flavour}`)
        await using podman = await startPodman(flavour)
        await pull(podman)
        await agent?.stop()
        for (const command of [['images'], ['ps', '--all'], ['info']]) await podman.succeed(command)
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: HELLO })
      })

      test(`Podman ${version} maps users`, { timeout: ENGINE_TIMEOUT_MS }, async () => {
        await serve(`cache-${flavour}`)
        await using podman = await startPodman(flavour)
        await openToAll(podman)
        await pull(podman)
        const mapped = ['--rm', '--uidmap', '0:100000:65536']
        expect(await podman.container('run', [...mapped, image])).toMatchObject({ code: 0, stdout: HELLO })
        const stat = await podman.container('run', [
          ...mapped,
          '--entrypoint',
          'stat',
          image,
          '-c',
          '%u:%g',
          '/etc/shadow',
        ])
        expect(stat.stdout).toBe('0:42\n')
      })
    })
  }

  async function build(podman: Podman): Promise<void> {
    const context = join(podman.path, 'context')
    await mkdir(context)
    await writeFile(join(context, 'Containerfile'), `FROM ${image}\nCOPY said /said\n`)
    await writeFile(join(context, 'said'), 'built\n')
    await registry.clear()
    await podman.succeed(['build', '--quiet', '--tag', 'built', context])
    expect(await registry.log()).toEqual([])
    const said = await podman.container('run', ['--rm', '--entrypoint', 'cat', 'built', '/said'])
    expect(said.stdout).toBe('built\n')
  }

  for (const [flavour, version] of [
    ['debian12', '4.3.1'],
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(`${version} by DiffID`, podmanLacks(flavour), () => {
      test(`Podman ${version} finds what lazylayer pull listed, by DiffIDs that are believed, and builds on it without a copy`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await serve(`claimed-${flavour}`, '--diffid', 'claimed')
        const told = await lazylayer(work.path, 'pull', image, '--root', root)
        expect(told).toMatchObject({ code: 0, stdout: `${image}: 2 of 2 layers listed\n` })
        await using podman = await startPodman(flavour)
        expect(await pull(podman)).toEqual({ id: IMAGE_ID, blobs: [CONFIG] })
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: HELLO })
        await build(podman)
        const { stdout } = await podman.exec(['du', '--summarize', '--block-size=1', join(podman.path, 'graph')])
        expect(Number.parseInt(stdout, 10)).toBeLessThan(1_000_000)
        await podman.succeed(['rmi', '--all', '--force'])
        expect(await pull(podman)).toEqual({ id: IMAGE_ID, blobs: [CONFIG] })

        expect(await agent?.stop()).toBe(0)
        await serve(`claimed-${flavour}`, '--diffid', 'claimed')
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
        // claims that are not believed any more are not listed again
        expect(await agent?.stop()).toBe(0)
        const unbelieving = await serve(`claimed-${flavour}`)
        expect(await podman.exec(['cat', join(root, 'images/overlay-layers/layers.json')])).toMatchObject({
          stdout: '[]\n',
        })
        expect(unbelieving.log()).toContain('they bore DiffIDs that it claims')
      })
    })
  }

  suite('a layer that is no eStargz', podmanLacks('trixie'), () => {
    test('ends what is listed; the engine pulls the rest', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const layout = join(work.path, 'layout')
      await mkdir(layout)
      const file = (path: string) => [{ path, type: 'file' as const, content: Buffer.from(`${path}\n`) }]
      const { layers } = await writeImage({
        dir: layout,
        tag: 'mixed',
        layers: [
          { kind: 'estargz', entries: file('lowest') },
          { kind: 'gzip', entries: file('plain') },
          { kind: 'estargz', entries: file('highest') },
        ],
      })
      await registry.pushLayout(layout, 'mixed', 'mixed')
      const served = await serve('cache-mixed')
      await using podman = await startPodman('trixie')
      const name = `${registry.host}/mixed:mixed`
      await registry.clear()
      await podman.succeed(['pull', '--quiet', name])
      const uris = byEngine(await registry.log()).map(({ uri }) => uri.split('/').pop())
      expect(uris).not.toContain(layers[0]?.digest)
      expect(uris).toEqual(expect.arrayContaining([layers[1]?.digest, layers[2]?.digest]))
      const container = await podman.succeed(['create', name, '/none'])
      const mounted = await podman.succeed(['mount', container])
      const { stdout } = await podman.exec(['sh', '-c', `cat ${mounted}/lowest ${mounted}/plain ${mounted}/highest`])
      expect(stdout).toBe('lowest\nplain\nhighest\n')
      await podman.succeed(['umount', container])
      const told = await lazylayer(work.path, 'pull', name, '--root', root)
      expect(told.stdout).toContain(`${name}: 1 of 3 layers listed\n  from ${layers[1]?.digest} on`)
      expect(served.log().match(/are left to the engine: it is not lazy/g)).toHaveLength(1)
    })
  })

  for (const [flavour, version] of [
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(`${version} and an image that claims to be another`, podmanLacks(flavour), () => {
      test(`Podman ${version} runs the victim's files after the attacker was pulled, lazily, under its DiffID`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const layout = join(work.path, `poison-${flavour}`)
        await mkdir(layout)
        const file = (content: string) => [{ path: 'who', type: 'file' as const, content: Buffer.from(content) }]
        const image = (tag: string, kind: 'estargz' | 'gzip') =>
          writeImage({ dir: layout, tag, layers: [{ kind, entries: file(`${tag}\n`) }] })
        const victim = await image('victim', 'gzip')
        const attacker = await image('attacker', 'estargz')
        await claim(layout, attacker.manifestDigest, victim.diffIds)
        for (const tag of ['attacker', 'victim']) await registry.pushLayout(layout, tag, tag)
        await serve(`cache-poison-${flavour}`)
        await using podman = await startPodman(flavour)
        const contents = async (tag: string) => {
          const name = `${registry.host}/${tag}:${tag}`
          await podman.succeed(['pull', '--quiet', name])
          const mounted = await podman.succeed(['mount', await podman.succeed(['create', name, '/none'])])
          return (await podman.exec(['cat', `${mounted}/who`])).stdout
        }
        expect(await contents('attacker')).toBe('attacker\n')
        const list = await podman.exec(['cat', join(root, 'images/overlay-layers/layers.json')])
        expect(JSON.parse(list.stdout)).toMatchObject([{ flags: { 'expected-layer-diffid': victim.diffIds[0] } }])
        expect(await contents('victim')).toBe('victim\n')
      })
    })
  }

  suite('a registry that wants credentials', podmanLacks('trixie'), () => {
    test('is asked by the agent with those that the engine was given', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const closed = await startDockerRegistry({ dir: work.path, credentials: { username: 'ada', password: 'pass' } })
      onTestFinished(() => closed.stop())
      await closed.pushLayout(join('path' in images ? images.path : '', 'images/py-esgz'), 'py', 'py')
      const name = `${closed.host}/py:py`
      const args = ['serve', root, '--cache', join(work.path, 'cache-closed'), '--cert-dir', closed.certDir]
      agent = await startAgent(work.path, root, args)
      await using podman = await startPodman('trixie', [closed])
      await podman.succeed(['pull', '--quiet', '--creds', 'ada:pass', name])
      const blobs = byEngine(await closed.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))
      expect(new Set(blobs)).toEqual(new Set([CONFIG]))
      expect(await podman.container('run', ['--rm', name])).toMatchObject({ code: 0, stdout: HELLO })
      expect(agent.log()).not.toContain('pass')
    })
  })

  suite('both doors', podmanLacks('trixie'), () => {
    test('may be configured at once', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await serve('cache-both')
      await using podman = await startPodman('trixie', [registry], [`${join(root, 'layers')}:ref`])
      const first = await pull(podman)
      expect(first.blobs).toEqual([CONFIG])
      expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
      await podman.succeed(['rmi', image])
      expect(await pull(podman)).toEqual(first)
      expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
    })
  })

  suite('FUSE alone', podmanLacks('trixie'), () => {
    test('serves what is listed, too', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await serve('cache-fuse', '--mount', 'fuse')
      await using podman = await startPodman('trixie')
      expect((await pull(podman)).blobs).toEqual([CONFIG])
      expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: HELLO })
      expect(await mountsBelow(join(root, 'images'))).toEqual([])
    })
  })

  suite('twenty at once', podmanLacks('trixie'), () => {
    test('all pull and run one image', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await serve('cache-twenty')
      await using podman = await startPodman('trixie')
      await registry.clear()
      const all = Array.from({ length: 20 }, () =>
        podman.container('run', ['--rm', '--quiet', image], ENGINE_TIMEOUT_MS),
      )
      const outcomes = await Promise.all(all)
      expect(outcomes.filter(({ code, stdout }) => code !== 0 || stdout !== HELLO)).toEqual([])
      const blobs = new Set(byEngine(await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : [])))
      expect([...blobs]).toEqual([CONFIG])
    })
  })
})

/** Not the agent's. */
function byEngine(requests: readonly Request[]): Request[] {
  return requests.filter(({ userAgent }) => userAgent.startsWith('containers/'))
}

/** Has the image of a layout claim other DiffIDs than its own. */
async function claim(layout: string, manifest: Digest, diffIds: readonly Digest[]): Promise<void> {
  const blob = (digest: Digest) => join(layout, 'blobs/sha256', hex(digest))
  const put = async (value: object) => {
    const bytes = new TextEncoder().encode(JSON.stringify(value))
    await writeFile(blob(digestOf(bytes)), bytes)
    return { digest: digestOf(bytes), size: bytes.length }
  }
  const read = async (path: string) => JSON.parse(await readFile(path, 'utf8')) // of our own making
  const old = await read(blob(manifest))
  const config = await put({ ...(await read(blob(old.config.digest))), rootfs: { type: 'layers', diff_ids: diffIds } })
  const changed = await put({ ...old, config: { ...old.config, ...config } })
  const index = await read(join(layout, 'index.json'))
  const manifests = index.manifests.map((each: { digest: Digest }) =>
    each.digest === manifest ? { ...each, ...changed } : each,
  )
  await writeFile(join(layout, 'index.json'), JSON.stringify({ ...index, manifests }))
}

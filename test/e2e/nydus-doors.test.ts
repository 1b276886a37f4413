// nydus images through both doors: its blobs are shown empty, its bootstrap layer shows the tree, and engines know both by DiffIDs.
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { endOfArchive } from '../../src/build/tar.ts'
import { expected, sampleLayers } from '../format/samples.ts'
import { member } from '../format/tar/tar-craft.ts'
import { type Agent, lazylayer } from './agent.ts'
import { named } from './app-image.ts'
import { byEngine, type Door, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { samples } from './engines/needs.ts'
import { type Flavour, type Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'
import { asTarGz, type MadeLayer, nydusLayers, writeLayers } from './nydus-image.ts'

const TIMEOUT_MS = 600_000

const file = (path: string, text: string) => ({ path, type: 'file' as const, content: Buffer.from(text) })
const tar = (files: Record<string, string>) =>
  Buffer.concat([...Object.entries(files).map(([name, text]) => member({ name }, text)), endOfArchive()])

const doors: { flavour: Flavour; version: string; door: Door }[] = [
  { flavour: 'debian12', version: '4.3.1', door: 'images' },
  { flavour: 'debian12', version: '4.3.1', door: 'layers' },
  { flavour: 'trixie', version: '5.4.2', door: 'images' },
]

suite('nydus images', STORE_LACKS, () => {
  let store: EngineStore
  const ids = new Map<string, string>()
  let app: MadeLayer[]

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      const layout = join(dir, 'layout')
      const programs = await named(['sh', 'cat', 'ls'])
      const entries = [
        ...programs.filter(({ type }) => type !== 'dir'),
        ...['dev', 'proc', 'sys', 'etc'].map((path) => ({ path, type: 'dir' as const })),
        { path: 'tmp', type: 'dir' as const, mode: 0o1777 },
        file('etc/greeting', 'hello from a nydus image\n'),
        file('ballast', 'x'.repeat(5 << 20)),
      ]
      app = await nydusLayers(entries)
      const top = app.at(-1) as MadeLayer
      const { annotations: _, ...unmarked } = top.descriptor
      const fix = tar({ 'etc/fix': 'fixed\n'.repeat(100) })
      const says = { config: { Cmd: ['/bin/cat', '/etc/greeting'], Env: ['PATH=/bin'] } }
      const images: Record<string, MadeLayer[]> = {
        app,
        above: [...app, asTarGz(tar({ 'etc/.wh.greeting': '', 'etc/more': 'more\n' }))],
        unmarked: [...app.slice(0, -1), { ...top, descriptor: { ...unmarked, annotations: {} } }, asTarGz(fix)],
        ordinary: [asTarGz(fix), { ...top, descriptor: { ...unmarked, annotations: {} } }],
        hostile: await nydusLayers([{ path: 'evil', type: 'symlink', target: 'etc/greeting' }], [fix]),
        victim: [asTarGz(fix)],
      }
      for (const [tag, layers] of Object.entries(images))
        ids.set(tag, (await writeLayers(layout, tag, layers, says)).slice(7))
      return { layout, tags: Object.keys(images) }
    })
    await store.installHelper()
  }, TIMEOUT_MS)
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const name = (tag: string) => `${store.registry.host}/${tag}:${tag}`
  const told = async (tag: string) => (await lazylayer(store.work.path, 'pull', name(tag), '--root', store.root)).stdout

  /** @returns the image's ID, and how many blobs the engine itself asked for */
  async function pull(podman: Podman, tag: string): Promise<{ id: string; blobs: number }> {
    await store.registry.clear()
    const id = await podman.succeed(['pull', '--quiet', name(tag)])
    return { id, blobs: byEngine(await store.registry.log()).filter(({ kind }) => kind === 'blob').length }
  }

  /** What a shell says in a container's tree, mounted. */
  async function within(podman: Podman, tag: string, line: string): Promise<string> {
    const container = await podman.succeed(['create', name(tag), '/none'])
    const mounted = await podman.succeed(['mount', container])
    const { stdout } = await podman.exec(['sh', '-c', `cd ${mounted} && ${line}`])
    await podman.succeed(['umount', container])
    await podman.succeed(['rm', container])
    return stdout
  }

  const lazily = (tag: string) => ({ id: ids.get(tag), blobs: 1 }) // its config

  for (const { flavour, version, door } of doors) {
    suite(`Podman ${version} (${door})`, podmanLacks(flavour), () => {
      test(`Podman ${version} pulls no layer of a nydus image that was read once, runs it, and pulls none again (${door})`, {
        timeout: TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}-${door}`)
        expect(await told('app')).toBe(`${name('app')}: 3 of 3 layers listed (3 by DiffID)\n`)
        await using podman = await store.startEngine(flavour, door)
        expect(await pull(podman, 'app')).toEqual(lazily('app'))
        const run = () => podman.container('run', ['--rm', name('app')])
        expect(await run()).toMatchObject({ code: 0, stdout: 'hello from a nydus image\n' })
        expect(await within(podman, 'app', 'stat -c %a . tmp ballast && ls image bin/.wh* 2>/dev/null')).toBe(
          '755\n1777\n644\n',
        )
        // what cannot work fails before anything is fetched
        await store.registry.clear()
        const saved = await podman.run(['save', '-o', join(podman.path, 'saved'), name('app')])
        expect(saved).toMatchObject({ code: 125, stderr: expect.stringMatching(/see lazylayer explain|nydus\.blob/) })
        expect(byEngine(await store.registry.log())).toEqual([])
        await podman.succeed(['rmi', name('app')])
        expect(await pull(podman, 'app')).toEqual(lazily('app'))

        await store.stop()
        await store.serve(`cache-${flavour}-${door}`)
        await store.registry.clear()
        expect(await run()).toMatchObject({ code: 0, stdout: 'hello from a nydus image\n' })
        expect((await store.registry.log()).filter(({ kind }) => kind === 'blob')).toEqual([])
      })

      test(`Podman ${version} has the bootstrap's file where its layer is an ordinary one, and the victim's where that poses as a blob (${door})`, {
        timeout: TIMEOUT_MS,
      }, async () => {
        const agent: Agent = await store.serve(`cache-${flavour}-${door}-hostile`)
        await told('app')
        const hostile = await told('hostile')
        expect(hostile).toContain('0 of 2 layers listed')
        expect(agent.log()).toContain('it begins as a tar does')
        await using podman = await store.startEngine(flavour, door)
        expect(await pull(podman, 'app')).toEqual(lazily('app'))
        await podman.run(['pull', '--quiet', name('hostile')]) // whatever comes of it
        await podman.succeed(['pull', '--quiet', name('victim')])
        expect(await within(podman, 'victim', 'head -n 1 etc/fix')).toBe('fixed\n')
        await podman.succeed(['pull', '--quiet', name('ordinary')])
        const boot = gunzipSync((app.at(-1) as MadeLayer).bytes).subarray(512)
        const size = Number.parseInt(gunzipSync((app.at(-1) as MadeLayer).bytes).toString('latin1', 124, 135), 8)
        expect(
          await within(podman, 'ordinary', 'head -n 1 etc/fix; wc -c <image/image.boot; head -c 4 image/image.boot'),
        ).toBe(`fixed\n${size}\n${boot.toString('latin1', 0, 4)}`)
      })

      if (flavour === 'debian12' && door === 'images') return // as through either of the others
      test(`Podman ${version} has layers above a nydus image, whoever wrote its manifest (${door})`, {
        timeout: TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}-${door}-above`)
        for (const tag of ['above', 'unmarked']) {
          expect(await told(tag)).toBe(`${name(tag)}: 4 of 4 layers listed (4 by DiffID)\n`)
        }
        await using podman = await store.startEngine(flavour, door)
        expect(await pull(podman, 'above')).toEqual(lazily('above'))
        expect(await within(podman, 'above', 'ls etc && cat etc/more')).toBe('more\nmore\n')
        expect(await pull(podman, 'unmarked')).toEqual(lazily('unmarked'))
        expect(await within(podman, 'unmarked', 'cat etc/greeting; head -n 1 etc/fix')).toBe(
          'hello from a nydus image\nfixed\n',
        )
      })
    })
  }

  // Podman 4.3 looks for listed layers only, and tells nobody of an image before
  for (const { flavour, version, door } of doors.slice(1)) {
    suite(`Podman ${version} (${door}), guarded`, podmanLacks(flavour), () => {
      test(`Podman ${version} has the victim's file where images are believed until another says otherwise (${door})`, {
        timeout: TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}-${door}-guarded`, '--diffid', 'guarded')
        await using podman = await store.startEngine(flavour, door)
        for (const tag of ['app', 'hostile']) expect(await pull(podman, tag)).toEqual(lazily(tag))
        expect(await within(podman, 'app', 'cat etc/greeting')).toBe('hello from a nydus image\n')
        await podman.succeed(['pull', '--quiet', name('victim')])
        if (door === 'layers') {
          // the engine has its own record of the layer by now, of which nothing is left
          await expect(within(podman, 'victim', 'ls etc')).rejects.toThrow('invalid argument')
          await podman.succeed(['rm', '--all', '--force'])
          await podman.succeed(['rmi', name('hostile'), name('victim')])
          await podman.succeed(['pull', '--quiet', name('victim')])
        }
        expect(await within(podman, 'victim', 'head -n 1 etc/fix')).toBe('fixed\n')
      })
    })
  }

  const found = samples()
  const lacks = 'lacking' in found ? found.lacking : podmanLacks('trixie')
  suite('nydus images of other tools', lacks, () => {
    test('whose blobs are small, or have no chunks, are lazy at the first start: they are read whole at once', {
      timeout: TIMEOUT_MS,
    }, async () => {
      const layout = join('path' in found ? found.path : '', 'samples/oci')
      const { registry } = store
      for (const tag of ['nydus', 'nydus-zran', 'plain']) await registry.pushLayout(layout, tag, 'sample')
      // the ordinary layers that have the chunks of the second
      const chunks = sampleLayers('samples/oci', 'plain').map(({ descriptor }) => descriptor.digest)
      await store.serve('cache-sample')
      await using podman = await store.startEngine('trixie', 'images')
      for (const tag of ['nydus', 'nydus-zran']) {
        const image = `${registry.host}/sample:${tag}`
        await registry.clear()
        await podman.succeed(['pull', '--quiet', image])
        const requests = (await registry.log()).filter(({ kind }) => kind === 'blob')
        expect(byEngine(requests)).toHaveLength(1)
        expect(requests.filter(({ uri }) => chunks.some((each) => uri.endsWith(each)))).toEqual([])
        const mounted = await podman.succeed(['mount', await podman.succeed(['create', image, '/none'])])
        const { stdout } = await podman.exec(['sh', '-c', `cd ${mounted} && ls etc many && sha256sum bin/big d/new`])
        const of = (path: string) => `${expected(1).find((each) => each.path === path)?.sha256}  ${path}\n`
        const names = 'etc:\nhello.txt\nlink\nlonglink\n\nmany:\nonly-this\n'
        expect(stdout).toBe(`${names}${of('bin/big')}${of('d/new')}`)
      }
    })
  })
})

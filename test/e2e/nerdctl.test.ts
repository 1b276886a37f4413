// nerdctl on containerd with lazylayer as its snapshotter: pull, run, commit, save, and push to another repository of the same registry.
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { noise } from '../../bench/tree.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { lazylayer } from './agent.ts'
import { type AppImage, named, writeApp } from './app-image.ts'
import { byEngine, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { directoryIn } from './engines/buildkit.ts'
import { Containerd, containerdLacks } from './engines/containerd.ts'
import { suite } from './engines/suite.ts'
import { FORMAT_IMAGES, FORMAT_TAGS, writeFormatImages } from './format-images.ts'

/** The program, which no Debian has. */
const NERDCTL = process.env.LAZYLAYER_TEST_NERDCTL ?? ''
const FLAVOUR = containerdLacks('built') === undefined ? 'built' : 'trixie'
const LACKS = NERDCTL === '' ? 'LAZYLAYER_TEST_NERDCTL names no program' : undefined

suite('nerdctl', STORE_LACKS ?? LACKS ?? containerdLacks(FLAVOUR), () => {
  // older ones of either are lazy by this name only
  const name = 'stargz'
  let store: EngineStore
  let app: AppImage
  let containerd: Containerd

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      app = await writeApp(join(dir, 'app'))
      const layers = [
        await named(['sh', 'cat']),
        [{ path: 'large', type: 'file' as const, content: noise('large', 50_000) }],
      ]
      const config = { Cmd: ['/bin/sh'] }
      await writeImage({
        dir: app.layout,
        tag: 'small',
        config,
        layers: layers.map((entries) => ({ kind: 'estargz', entries })),
      })
      return { layout: app.layout, tags: [app.tag, 'small', ...(await writeFormatImages(app.layout))] }
    })
    const { registry, work } = store
    const path = await directoryIn(work.path, 'c')
    const socket = join(path, 's.sock')
    await store.serve('cache', '--containerd', socket, '--containerd-address', Containerd.addressIn(path))
    containerd = await Containerd.prepare(path, { flavour: FLAVOUR, work: work.path, socket, trust: [registry], name })
    await containerd.start()
  })
  afterAll(async () => {
    await containerd?.close()
    await store?.close()
  })

  /** @returns what it printed @throws where it failed */
  const nerdctl = async (...args: string[]) => {
    const { path } = containerd
    const where = ['--address', Containerd.addressIn(path), '--snapshotter', name]
    const folders = ['--hosts-dir', join(path, 'certs.d'), '--data-root', join(path, 'nerdctl')]
    const { code, stdout, stderr } = await containerd.run([NERDCTL, ...where, ...folders, ...args])
    expect(code === 0 ? '' : stderr).toBe('')
    return stdout
  }
  const run = (...args: string[]) => nerdctl('run', '--net', 'host', ...args)
  const blobsFetched = async () =>
    byEngine(await store.registry.log()).filter(
      ({ kind, method, bytes }) => kind === 'blob' && method === 'GET' && bytes > 2_000,
    )

  test('an image that it pulls runs, and containerd has fetched no layer of it', async () => {
    await nerdctl('pull', '--quiet', store.image)
    expect(await run('--rm', store.image)).toBe(app.says)
    expect(await blobsFetched()).toEqual([])
  })

  test.each(FORMAT_TAGS)('so does one with a plain base, in zstd:chunked or of nydus (%s)', async (tag) => {
    await store.registry.clear()
    const image = `${store.registry.host}/${tag}:${tag}`
    await nerdctl('pull', '--quiet', image)
    expect(await run('--rm', image)).toBe(FORMAT_IMAGES[tag])
    expect(await blobsFetched()).toEqual([])
  })

  test('what a container of it has made is committed, for which nerdctl fetches its layers, and pushed without them', async () => {
    const [small, made] = ['small:small', 'small/made:1'].map((name) => `${store.registry.host}/${name}`) as [
      string,
      string,
    ]
    await store.registry.clear()
    await nerdctl('pull', '--quiet', small)
    await run('--name', 'small', small, 'sh', '-c', 'echo made >/made')
    expect(await blobsFetched()).toEqual([])
    await nerdctl('commit', 'small', made)
    expect(await blobsFetched()).toHaveLength(2)
    await store.registry.clear()
    await nerdctl('push', '--quiet', made)
    const requests = byEngine(await store.registry.log())
    expect(requests.filter(({ kind, method }) => kind === 'blob' && method === 'GET')).toEqual([])
    expect(requests.filter(({ method, uri }) => method === 'POST' && uri.includes('mount='))).toHaveLength(2)
    await nerdctl('rm', 'small')
    await nerdctl('rmi', '--force', made, small)
    await nerdctl('pull', '--quiet', made)
    expect(await run('--rm', made, 'cat', '/made')).toBe('made\n')
  })

  test('once it is filled it is tagged, pushed, saved and committed to, with no layer fetched', async () => {
    await store.registry.clear()
    expect(await lazylayer(store.work.path, 'fill', store.image, '--root', store.root)).toMatchObject({ code: 0 })
    const other = `${store.registry.host}/other:1`
    await nerdctl('tag', store.image, other)
    await nerdctl('push', '--quiet', other)
    await nerdctl('save', '-o', join(store.work.path, 'saved.tar'), store.image)
    await run('--name', 'made', store.image, 'sh', '-c', 'echo made >/made')
    await nerdctl('commit', 'made', 'made:1')
    expect(await run('--rm', 'made:1', 'sh', '-c', 'cat /made /app/greeting')).toBe(`made\n${app.says}`)
    expect(await blobsFetched()).toEqual([])
  })
})

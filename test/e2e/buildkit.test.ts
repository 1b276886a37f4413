// BuildKit with lazylayer as its snapshotter, by either of its workers: builds on a lazy image fetch none of its layers.
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type AppImage, writeApp } from './app-image.ts'
import { byEngine, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { BuildKit, buildKitLacks, directoryIn } from './engines/buildkit.ts'
import { Containerd, containerdLacks } from './engines/containerd.ts'
import { suite } from './engines/suite.ts'
import { FORMAT_IMAGES, FORMAT_TAGS, writeFormatImages } from './format-images.ts'

const FLAVOUR = containerdLacks('built') === undefined ? 'built' : 'trixie'

for (const worker of ['oci', 'containerd'] as const)
  suite(
    `BuildKit with its ${worker} worker`,
    STORE_LACKS ?? buildKitLacks() ?? (worker === 'oci' ? undefined : containerdLacks(FLAVOUR)),
    () => tests(worker),
  )

function tests(worker: 'oci' | 'containerd'): void {
  let store: EngineStore
  let app: AppImage
  let buildKit: BuildKit
  let containerd: Containerd | undefined

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      app = await writeApp(join(dir, 'app'))
      return { layout: app.layout, tags: [app.tag, ...(await writeFormatImages(app.layout))] }
    })
    const { registry, work } = store
    const [path, own] = [await directoryIn(work.path, 'b'), await directoryIn(work.path, 'c')]
    const socket = join(path, 's.sock')
    const trust = [registry]
    const of = worker === 'oci' ? BuildKit.addressIn(path) : Containerd.addressIn(own)
    await store.serve('cache', '--containerd', socket, '--containerd-address', of)
    if (worker === 'containerd') {
      containerd = await Containerd.prepare(own, { flavour: FLAVOUR, work: work.path, socket, trust, name: 'stargz' })
      await containerd.start()
    }
    const layers = containerd === undefined ? { is: 'oci' as const, socket } : { is: 'containerd' as const, containerd }
    buildKit = await BuildKit.start(path, { work: work.path, worker: layers, name: 'stargz', trust })
  })
  afterAll(async () => {
    await buildKit?.close()
    await containerd?.close()
    await store?.close()
  })

  const blobs = async () =>
    byEngine(await store.registry.log()).filter(({ kind, bytes }) => kind === 'blob' && bytes > 2_000)

  test('a build on a lazy image runs its commands, and BuildKit has fetched no layer of it', async () => {
    await store.registry.clear()
    const { code, stderr } = await buildKit.build(
      `FROM ${store.image}\nRUN /app/hello && cat /app/name\nCOPY --from=${store.image} /app/part7 /made\nRUN cat /made\n`,
    )
    expect(stderr).toContain('hello from the top')
    expect(stderr).toContain('the middle')
    expect(stderr).toContain('part 7')
    expect(code).toBe(0)
    expect(await blobs()).toEqual([])
  })

  test('what is built is pushed to the same registry, without the layers of its base', async () => {
    await store.registry.clear()
    const built = `${store.registry.host}/built`
    const output = `type=image,name=${built}:1,push=true,store=false`
    const { code, stderr } = await buildKit.build(`FROM ${store.image}\nRUN cat /app/name >/made\n`, '--output', output)
    expect(code === 0 ? '' : stderr).toBe('')
    const requests = byEngine(await store.registry.log())
    expect(
      requests.filter(({ kind, method, status }) => kind === 'blob' && method === 'GET' && status === 200),
    ).toEqual([])
    expect(requests.filter(({ method, uri }) => method === 'POST' && uri.includes('mount='))).toHaveLength(3)
    const again = await buildKit.build(`FROM ${built}:1\nRUN cat /made\n`)
    expect(again.stderr).toContain('the middle')
  })

  test.each(FORMAT_TAGS)(
    'a build on an image with a plain base, in zstd:chunked or of nydus runs as well (%s)',
    async (tag) => {
      await store.registry.clear()
      const { code, stderr } = await buildKit.build(`FROM ${store.registry.host}/${tag}:${tag}\nRUN cat /etc/who\n`)
      expect(stderr).toContain(FORMAT_IMAGES[tag])
      expect(code).toBe(0)
      // its pull fetches all whose media types it does not know, before it asks a snapshotter
      if (tag !== 'nydus') expect(await blobs()).toEqual([])
    },
  )
}

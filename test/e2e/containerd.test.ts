// containerd with lazylayer as its snapshotter: pulls fetch no layer, containers run, and nothing that either was told is lost.
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { noise } from '../../bench/tree.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { endOfArchive } from '../../src/build/tar.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import { member } from '../format/tar/tar-craft.ts'
import { type Agent, gone, lazylayer, successorOf } from './agent.ts'
import { type AppImage, partsOf, withPrograms, writeApp } from './app-image.ts'
import { claim } from './claim.ts'
import { byEngine, type EngineStore, makeStore, STORE_LACKS, withoutProofs } from './engine-store.ts'
import { Containerd, type ContainerdFlavour, containerdLacks } from './engines/containerd.ts'
import { suite } from './engines/suite.ts'
import { FORMAT_IMAGES, writeFormatImages } from './format-images.ts'
import { asTarGz, nydusLayers, writeLayers } from './nydus-image.ts'
import { ALL, LONG } from './sample.ts'

/** runc keeps all containers of a machine in one place. */
const ID = `test-${process.pid}`

const file = (path: string, text: string) => ({ path, type: 'file' as const, content: Buffer.from(text) })

for (const flavour of ['trixie', 'sid', 'built'] as const)
  suite(`containerd of ${flavour}`, STORE_LACKS ?? containerdLacks(flavour), () => tests(flavour))

function tests(flavour: ContainerdFlavour): void {
  let store: EngineStore
  let app: AppImage
  let containerd: Containerd
  let agent: Agent
  let serve: (...more: string[]) => Promise<Agent>

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      app = await writeApp(join(dir, 'app'))
      return { layout: app.layout, tags: [app.tag, ...(await writeOthers(app.layout))] }
    })
    const { registry, work } = store
    const path = join(work.path, 'c')
    await mkdir(path)
    await chmod(work.path, 0o711) // roots of user namespaces get to their containers by it
    const socket = join(path, 's.sock')
    const args = ['--containerd', socket, '--containerd-address', Containerd.addressIn(path)]
    serve = (...more) => store.serve('cache', ...args, ...more)
    containerd = await Containerd.prepare(path, { flavour, work: work.path, socket, trust: [registry] })
    agent = await serve()
    await containerd.start()
  })
  afterAll(async () => {
    await containerd?.close()
    await store?.close()
  })

  const NAME = ['--snapshotter', 'lazylayer']
  const image = (tag: string) => `${store.registry.host}/${tag}:${tag}`
  let runs = 0
  const run = (tag = app.tag, ...command: string[]) =>
    containerd.ctr('k8s.io', 'run', '--rm', '--net-host', ...NAME, image(tag), `${ID}-${runs++}`, ...command)
  /** containerd tries to connect again up to 3 s after it could not. */
  const runsSoon = () => expect.poll(() => run(), { interval: 500, timeout: 20_000 }).toMatchObject(works())
  const works = () => ({ code: 0, stdout: app.says })
  const pull = async (tag = app.tag) => {
    await store.registry.clear()
    expect(await containerd.pullByCri(image(tag))).toMatchObject({ status: 0, message: '' })
  }
  const snapshots = async () =>
    (await containerd.ctr('k8s.io', 'snapshots', ...NAME, 'ls')).stdout.split('\n').slice(1).filter(Boolean).length
  /** By containerd itself, beside configs. */
  const blobsFetched = async () =>
    byEngine(await store.registry.log()).filter(({ kind, bytes }) => kind === 'blob' && bytes > 2_000)

  test('an image that kubelet has pulled runs, and containerd has fetched no layer of it', async () => {
    await pull()
    expect(await run()).toMatchObject(works())
    expect(await blobsFetched()).toEqual([])
    // what the tag means, the manifest and the configuration
    const own = byEngine(await store.registry.log()).filter(({ kind }) => kind !== 'ping')
    expect(own.map(({ method, kind }) => `${method} ${kind}`)).toEqual(['HEAD manifest', 'GET manifest', 'GET blob'])
    expect(await snapshots()).toBe(3)
  })

  /** What does not depend on containerd's version is tried with the others than sid's. */
  const whole = (title: string, body: () => Promise<void>) => {
    if (flavour !== 'sid') test(title, body)
  }
  /** What hardly does. */
  const mostly = (title: string, body: () => Promise<void>) => {
    if (flavour !== 'sid' || ALL) test(title, body)
    else test.skip(`${title} (${LONG})`, () => undefined)
  }

  whole('it runs after the agent or containerd was killed, without the registry', async () => {
    process.kill(agent.pid, 'SIGKILL')
    await gone(agent.pid)
    await agent.ended
    await store.registry.clear()
    agent = await serve() // it answers when all is shown again
    expect(withoutProofs(await store.registry.log())).toEqual([])
    await runsSoon()
    expect(await store.stop()).toBe(0)
    agent = await serve()
    await runsSoon()
    await containerd.kill()
    await containerd.start()
    expect(await run()).toMatchObject(works())
    expect(await blobsFetched()).toEqual([])
  })

  whole('a container that runs while the agent is killed reads on, and others start at once', async () => {
    expect(await store.stop()).toBe(0)
    agent = await serve('--keeper-patience', '120')
    await runsSoon()
    const turns = join(store.work.path, 'turns')
    await mkdir(turns)
    const script = 'for n in 1 2; do until [ -e /tmp/$n ]; do sleep 0.1; done; cat /app/part$n* || echo failed; done'
    const bind = ['--mount', `type=bind,src=${turns},dst=/tmp,options=rbind:rw`]
    const args = ['run', '--rm', '--net-host', ...bind, ...NAME, image(app.tag), 'killed', 'sh', '-c', script]
    const running = containerd.ctr('k8s.io', ...args)
    const tasks = async () => (await containerd.ctr('k8s.io', 'tasks', 'ls', '-q')).stdout
    await expect.poll(tasks, { timeout: 60_000 }).toContain('killed')
    let { pid } = agent
    for (const turn of ['1', '2']) {
      process.kill(pid, 'SIGKILL')
      await writeFile(join(turns, turn), '')
      pid = await successorOf(agent, pid, 60_000)
    }
    const read = ['1', '2'].map(partsOf)
    expect(await running).toMatchObject({ code: 0, stdout: read.join('') })
    await runsSoon()
    expect(await store.stop()).toBe(0)
    agent = await serve()
    await runsSoon()
  })

  whole('what containerd removes is gone, and what it pulls again is lazy again', async () => {
    const { stdout } = await containerd.ctr('k8s.io', 'images', 'ls', '-q')
    for (const each of stdout.split('\n').filter(Boolean))
      await containerd.ctr('k8s.io', 'images', 'rm', '--sync', each)
    await expect.poll(() => snapshots()).toBe(0)
    await expect.poll(() => readdir(join(store.root, 'snapshots'))).toEqual([])
    await pull()
    expect(await run()).toMatchObject(works())
    expect(await blobsFetched()).toEqual([])
  })

  test('what is mounted of it, to be read or written, is lazy, too', async () => {
    await store.registry.clear()
    for (const [i, how] of [[], ['--rw']].entries()) {
      const directory = join(store.work.path, `mounted${i}`)
      await mkdir(directory)
      const mounted = await containerd.ctr('k8s.io', 'images', 'mount', ...NAME, ...how, image(app.tag), directory)
      expect(mounted).toMatchObject({ code: 0 })
      expect((await containerd.run(['cat', join(directory, 'app/greeting')])).stdout).toBe(app.says)
      const left = await containerd.ctr('k8s.io', 'images', 'unmount', '--rm', ...NAME, directory)
      expect(left).toMatchObject({ code: 0 })
    }
    expect(await blobsFetched()).toEqual([])
  })

  // volumes since 2.1
  test(`a pod runs it${flavour === 'trixie' ? '' : ', and has it for a volume'}, on a sandbox that is lazy as well`, async () => {
    await store.registry.clear()
    const volume = flavour === 'trixie' ? {} : { volume: { image: image(app.tag), path: '/volume' } }
    const pod = await containerd.cri.runPod('pod', { image: image(app.tag), command: ['sleep', '1000'], ...volume })
    expect(await pod.exec('/app/hello')).toBe(app.says)
    if (flavour !== 'trixie') expect(await pod.exec('cat', '/volume/app/name')).toBe('the middle\n')
    await pod.remove()
    expect(await blobsFetched()).toEqual([])
  })

  // since 2.0
  if (flavour !== 'trixie')
    test('in a user namespace its files are its root’s, and nothing of it is copied', async () => {
      await pull()
      const map = ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536', '--remap-labels']
      const args = ['run', '--rm', ...NAME, ...map, image(app.tag), 'mapped']
      const line = 'stat -c %u:%g /bin/sh /etc/shadow /; cat /proc/self/uid_map; /app/hello'
      const { code, stdout, stderr } = await containerd.ctr('k8s.io', ...args, 'sh', '-c', line)
      expect(code === 0 ? '' : stderr).toBe('')
      expect(stdout).toMatch(/^0:0\n0:42\n0:0\n\s+0\s+100000\s+65536\nhello/)
      expect(await blobsFetched()).toEqual([])
    })

  // with runc 1.2 or later beside it, which CRI asks for; 2.2 cannot have a volume there, whoever shows it
  if (flavour === 'built')
    test('a pod of host users false has its files and those of its volume as the image has them, and nothing is copied', async () => {
      await pull('users')
      const volume = { image: image('users'), path: '/volume' }
      const of = { image: image('users'), command: ['sleep', '1000'], users: 200_000, volume }
      const pod = await containerd.cri.runPod('mapped', of)
      const sh = (line: string) => pod.exec('sh', '-c', line)
      // whoever is beyond the pod's users is nobody there
      const owners = ['65534:65534', '65535:65535', '0:0', '1000:42'].join('\n')
      expect(await sh('stat -c %u:%g /of/*')).toBe(`${owners}\n`)
      expect(await sh('stat -c %u:%g /volume/of/*')).toBe(`${owners}\n`)
      expect(await sh('cat /proc/self/uid_map')).toMatch(/^\s+0\s+200000\s+65536\n/)
      const writes =
        'install -o 1000 -g 42 -m 4755 /of/root /of/made && chown 5:6 /of/user && stat -c %u:%g:%a /of/made /of/user'
      expect(await sh(writes)).toBe('1000:42:4755\n5:6:644\n')
      await pod.remove()
      expect(await blobsFetched()).toEqual([])
    })

  mostly('of an image with a plain base containerd fetches no layer either, nor of one in zstd:chunked', async () => {
    for (const tag of ['mixed', 'zstd'] as const) {
      await pull(tag)
      expect(await run(tag)).toMatchObject({ code: 0, stdout: FORMAT_IMAGES[tag] })
      expect(await blobsFetched()).toEqual([])
    }
  })

  mostly(
    'a nydus image is lazy, and one that nobody can show is not pulled: its reason is told before any of it is fetched',
    async () => {
      await pull('nydus')
      expect(await run('nydus')).toMatchObject({ code: 0, stdout: FORMAT_IMAGES.nydus })
      expect(await blobsFetched()).toEqual([])
      await store.registry.clear()
      const byCtr = (tag: string) =>
        containerd.ctr(
          'default',
          'images',
          'pull',
          '--hosts-dir',
          join(containerd.path, 'certs.d'),
          ...NAME,
          image(tag),
        )
      const why = 'an ordinary layer is below its bootstrap'
      expect((await containerd.pullByCri(image('broken'))).message).toContain(why)
      if (flavour !== 'trixie') expect((await byCtr('broken')).stderr).toContain(why)
      const fetched = (await store.registry.log()).filter(({ kind, bytes }) => kind === 'blob' && bytes > 2_000)
      expect(fetched).toEqual([])
      // of 1.7, which asks for no lazy layer, and fetches all first
      if (flavour === 'trixie') expect((await byCtr('nydus')).stderr).toContain('one tree for several layers together')
    },
  )

  whole('what a lazy pull left out is filled in on request, so that containerd can export the image', async () => {
    await containerd.ctr('k8s.io', 'images', 'rm', '--sync', image('mixed'))
    await pull()
    const reference = image(app.tag)
    // its own registry has all of it
    const elsewhere = `${store.registry.host}/elsewhere:1`
    await containerd.ctr('k8s.io', 'images', 'tag', reference, elsewhere)
    const hosts = ['--hosts-dir', join(containerd.path, 'certs.d')]
    expect((await containerd.ctr('k8s.io', 'images', 'push', ...hosts, elsewhere)).code).toBe(0)
    const exported = () => containerd.ctr('k8s.io', 'images', 'export', join(store.work.path, 'image.tar'), reference)
    expect(await exported()).toMatchObject({ code: 1, stderr: expect.stringContaining('not found') })
    const fill = () => lazylayer(store.work.path, 'fill', reference, '--root', store.root)
    expect(await fill()).toMatchObject({ code: 0, stdout: expect.stringMatching(/3 layers, 3 brought, 26\.\d MB\n$/) })
    expect(await fill()).toMatchObject({ code: 0, stdout: expect.stringContaining('3 layers, nothing was missing') })
    // the collector runs, and takes what nothing refers to
    await containerd.ctr('k8s.io', 'images', 'tag', reference, 'other')
    await containerd.ctr('k8s.io', 'images', 'rm', '--sync', 'other')
    expect((await exported()).code).toBe(0)
    expect(await blobsFetched()).toEqual([])
    const checked = await containerd.ctr('k8s.io', 'images', 'check', `name==${reference}`)
    expect(checked.stdout).toMatch(/complete \(4\/4\)/)
  })

  mostly('an image has its own files, though a hostile one claimed its layer before', async () => {
    await pull('hostile')
    expect(await run('hostile')).toMatchObject({ code: 0, stdout: 'evil\n' })
    await pull('victim') // containerd knows all of its chains, and asks nothing
    expect(await run('victim')).toMatchObject({ code: 0, stdout: 'good\n' })
    expect(agent.log()).toContain('in the place of')
    expect(await blobsFetched()).toEqual([])
  })

  whole('an image has its own files, though a nydus image passed its layer off as a blob before', async () => {
    await pull('posing')
    await pull('posed')
    expect(await run('posed')).toMatchObject({ code: 0, stdout: 'good\n' })
    expect(agent.log()).toContain('it begins as a tar does')
    expect(await blobsFetched()).toEqual([])
  })

  whole('where nothing is believed a hostile image is not even there', async () => {
    expect(await store.stop()).toBe(0)
    agent = await serve('--diffid', 'proven')
    const refused = (tag: string, why: RegExp) =>
      expect
        .poll(() => containerd.pullByCri(image(tag)), { interval: 500, timeout: 20_000 })
        .toMatchObject({ message: expect.stringMatching(why) })
    await refused('hostile2', /wrong diff id/)
    await refused('posing2', /begins as a tar/)
    for (const tag of ['victim2', 'posed2']) {
      await pull(tag)
      expect(await run(tag)).toMatchObject({ code: 0, stdout: 'good\n' })
    }
  })
}

/** One whose layer another claims, that other, and more. @returns their tags */
async function writeOthers(layout: string): Promise<string[]> {
  const base = await withPrograms(['cat'])
  const write = (tag: string, who: string) =>
    writeImage({
      dir: layout,
      tag,
      config: { Cmd: ['/bin/cat', '/etc/who'], Labels: { tag } },
      layers: [
        { kind: 'estargz', entries: base },
        { kind: 'estargz', entries: [file('etc/who', who), file('etc/tag', tag.replace(/^[a-z]+/, ''))] },
      ],
    })
  await writeImage({
    dir: layout,
    tag: 'pause',
    config: { Entrypoint: ['/bin/sleep', '1000000'] },
    layers: [{ kind: 'estargz', entries: await withPrograms(['cat', 'sleep']) }],
  })
  const owned = { beyond: [70_000, 70_000], last: [65_535, 65_535], root: [0, 0], user: [1000, 42] } as const
  await writeImage({
    dir: layout,
    tag: 'users',
    config: { Env: ['PATH=/bin'] },
    layers: [
      { kind: 'estargz', entries: await withPrograms(['sh', 'cat', 'chown', 'install', 'sleep', 'stat']) },
      {
        kind: 'estargz',
        entries: Object.entries(owned).map(([who, [uid, gid]]) => ({ ...file(`of/${who}`, who), uid, gid })),
      },
    ],
  })
  const pairs = ['', '2'].map((of) => [`victim${of}`, `hostile${of}`] as const)
  for (const [victim, hostile] of pairs) {
    const { diffIds } = await write(victim, 'good\n')
    const { manifestDigest } = await write(hostile, 'evil\n')
    await claim(layout, manifestDigest, diffIds)
  }
  // an ordinary image, and one that has its tar for a blob
  const posing = ['', '2'].map((of) => [`posed${of}`, `posing${of}`] as const)
  for (const [posed, hostile] of posing) {
    const who = [...base, file('etc/who', 'good\n'), file('etc/tag', posed)]
    const config = { Cmd: ['/bin/cat', '/etc/who'], Labels: { tag: posed } }
    const { layers } = await writeImage({ dir: layout, tag: posed, config, layers: [{ kind: 'gzip', entries: who }] })
    const stored = await readFile(join(layout, 'blobs/sha256', hex(layers[0]?.digest as Digest)))
    const evil = { path: 'evil', type: 'symlink' as const, target: 'etc/who' }
    await writeLayers(layout, hostile, await nydusLayers([evil], [gunzipSync(stored)]))
  }
  const ofNydus = await nydusLayers([...base, file('etc/who', 'from nydus\n')])
  const ordinary = asTarGz(Buffer.concat([member({ name: 'etc/more' }, noise('more', 20_000)), endOfArchive()]))
  const config = { config: { Cmd: ['/bin/cat', '/etc/who'] } }
  await writeLayers(layout, 'broken', [ordinary, ...ofNydus], config)
  return [...(await writeFormatImages(layout)), 'pause', 'users', 'broken', ...pairs.flat(), ...posing.flat()]
}

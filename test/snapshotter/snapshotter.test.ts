// A snapshotter as clients see it, call by call over its socket. What it stands on here: layers that show what the test says.

import fs from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Client, Code, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { LeftLayers } from '../../src/agent/left-layers.ts'
import { Failure } from '../../src/errors.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { CallTimes } from '../../src/snapshotter/call-times.ts'
import { Folders } from '../../src/snapshotter/folders.ts'
import { Snapshots as Service } from '../../src/snapshotter/generated/snapshots_pb.ts'
import { type GrpcSocket, listenGrpc } from '../../src/snapshotter/grpc-socket.ts'
import type { PulledImage } from '../../src/snapshotter/pulled-image.ts'
import { Replacements } from '../../src/snapshotter/replacements.ts'
import { snapshotsRoutes } from '../../src/snapshotter/routes.ts'
import type { LazyLayer } from '../../src/snapshotter/snapshot.ts'
import { Snapshots } from '../../src/snapshotter/snapshots.ts'
import { Snapshotter } from '../../src/snapshotter/snapshotter.ts'

const REF = 'containerd.io/snapshot.ref'
const DIFF_ID = 'containerd.io/snapshot/diff-id'
const REMOTE = 'containerd.io/snapshot/remote'
const UID_MAPPING = 'containerd.io/snapshot/uidmapping'

const digest = (digit: string) => `sha256:${digit.repeat(64)}` as Digest
/** What two images have, the base first; a target is `chain<place>`. */
const lazyLayer = (place: number, tree: string): LazyLayer => ({
  reference: 'registry.example.com/app:1',
  manifest: digest('e'),
  place,
  diffId: digest(String(place)),
  blob: digest(tree),
  tree: digest(tree),
  together: false,
})

/** How a target is found. */
type Answer = LazyLayer | 'ordinary' | 'never' | 'late'

class World {
  readonly dir: string
  readonly answers = new Map<string, Answer>()
  readonly held: Digest[] = []
  readonly hidden = new Map<Digest, string>()
  readonly said: string[] = []
  readonly times = new CallTimes()
  /** Chains of layers that nobody unpacks. */
  readonly never = new Map<string, string>()
  late = Promise.withResolvers<void>()
  client!: Client<typeof Service>
  replacements!: Replacements
  #snapshots!: Snapshots
  #folders!: Folders
  #socket!: GrpcSocket

  constructor(dir: string) {
    this.dir = dir
  }

  treeDirectory(tree: Digest): string {
    return join(this.dir, 'trees', tree.slice(7, 11))
  }

  async start(): Promise<void> {
    const log = (message: string) => this.said.push(message)
    this.#snapshots = await Snapshots.open(join(this.dir, 'records'), log)
    const ids = new Set([...this.#snapshots.all()].flatMap(({ id, layer }) => (layer === undefined ? [id] : [])))
    const unknown = this.#snapshots.isDamaged ? 'is kept' : 'is removed'
    const folders = await Folders.open(join(this.dir, 'snapshots'), (id) => ids.has(id), unknown, log)
    this.#folders = folders
    const trees = {
      directoryOf: (tree: Digest) => this.treeDirectory(tree),
      has: (tree: Digest) => this.held.includes(tree),
      hold: async ({ tree }: { tree: Digest }) => void this.held.push(tree),
      letGo: (tree: Digest) => {
        const at = this.held.indexOf(tree)
        if (at >= 0) this.held.splice(at, 1)
      },
      bytesOf: async () => 4_096,
    }
    const names = { whyHidden: ({ tree }: LazyLayer) => this.hidden.get(tree) }
    this.replacements = new Replacements({ snapshots: this.#snapshots, trees, names, log })
    const snapshotter = new Snapshotter({
      snapshots: this.#snapshots,
      folders,
      besideTrees: '/trees/own',
      trees,
      names,
      replacements: this.replacements,
      parents: { check: async () => {} },
      pulls: { find: (_, target) => this.find(target), whyNeverUnpacked: async (_, chain) => this.never.get(chain) },
      patiently: (promise) =>
        Promise.race([
          promise,
          this.late.promise.then(() => {
            throw Failure.timeout('no progress')
          }),
        ]),
      overlayOptions: [],
      left: new LeftLayers(log),
    })
    const path = join(this.dir, 's.sock')
    const find = (name: string) => {
      if (name === 'lazylayer') return snapshotter
      throw Failure.missing('nobody is called so')
    }
    this.#socket = await listenGrpc(path, snapshotsRoutes(find, log, this.times))
    const nodeOptions = { createConnection: () => connect(path) }
    this.client = createClient(Service, createGrpcTransport({ baseUrl: 'http://localhost', nodeOptions }))
  }

  async find(target: string) {
    const answer = this.answers.get(target)
    if (answer === undefined) throw Failure.missing('no such image')
    const place = Number(target.slice(-1))
    const layers = Array.from({ length: 4 }, (_, i) => ({ digest: digest(String(i)) }))
    const use: PulledImage['use'] = async (_, work) => {
      if (answer === 'ordinary' || answer === 'never') throw Failure.unavailable('its registry is away')
      if (answer === 'late') await this.late.promise
      const layer = typeof answer === 'string' ? lazyLayer(place, '9') : answer
      await fs.mkdir(this.treeDirectory(layer.tree), { recursive: true })
      return await work({ layer, lease: { tree: layer.tree } as LayerLease })
    }
    const whyNeverUnpacked = () => (answer === 'never' ? 'it is no tar' : undefined)
    const said = layers.map((_, i) => ({
      blob: i === place && typeof answer === 'object' ? answer.blob : digest('f'),
      index: undefined,
    }))
    const image = { manifest: { layers }, digest: digest('e') }
    const pulled = { use, whyNeverUnpacked, image, said } as unknown as PulledImage // what is used of it
    return { pulled, place, chain: layers.map((_, i) => `chain${i}` as Digest) }
  }

  /** Ends what answers, as a signal does. */
  async stop(): Promise<void> {
    await this.#socket.close()
    await this.#folders.settled()
    await this.#snapshots.close()
    this.held.length = 0
  }

  prepare(key: string, parent: string, labels: Record<string, string> = {}, namespace?: string) {
    const options = namespace === undefined ? {} : { headers: { 'containerd-namespace': namespace } }
    return this.client.prepare({ snapshotter: 'lazylayer', key, parent, labels }, options)
  }

  /** Of a target on a parent, as containerd asks after ALREADY_EXISTS. */
  async found(target: string, parent: string, namespace?: string): Promise<string[]> {
    const options = namespace === undefined ? {} : { headers: { 'containerd-namespace': namespace } }
    const filters = [`labels."${REF}"==${target},parent=="${parent}"`]
    const names: string[] = []
    for await (const { info } of this.client.list({ snapshotter: 'lazylayer', filters }, options))
      names.push(...info.map(({ name }) => name))
    return names
  }

  /** Has a layer made that is there. @returns the name that it has */
  async exists(target: string, parent: string, namespace = 'ns'): Promise<string> {
    const key = `${namespace}/${Math.random()}/extract`
    await expect(this.prepare(key, parent, { [REF]: target }, namespace)).rejects.toMatchObject({
      code: Code.AlreadyExists,
    })
    const [name] = await this.found(target, parent, namespace)
    return name as string
  }
}

let world: World
beforeEach(async () => {
  world = new World(await fs.mkdtemp(join(tmpdir(), 'snapshotter-')))
  await world.start()
})
afterEach(async () => {
  await world.stop()
  await fs.rm(world.dir, { recursive: true })
})
const at = (request: object) => ({ snapshotter: 'lazylayer', ...request })

describe('a client that asks for layers of an image', () => {
  test('finds each by its target, and a container stands on them', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a')).set('chain1', lazyLayer(1, 'b'))
    const base = await world.exists('chain0', '')
    const top = await world.exists('chain1', base)
    const { info } = await world.client.stat(at({ key: top }))
    expect(info).toMatchObject({ kind: 3, parent: base, labels: { [REF]: 'chain1', [REMOTE]: 'true' } })
    const { mounts } = await world.prepare('ns/9/container', top)
    const lower = `lowerdir=${world.treeDirectory(digest('b'))}:${world.treeDirectory(digest('a'))}`
    expect(mounts).toMatchObject([{ type: 'overlay', source: 'overlay', options: expect.arrayContaining([lower]) }])
    expect(await world.client.mounts(at({ key: 'ns/9/container' }))).toEqual(expect.objectContaining({ mounts }))
    // again, as after a crash of the client: the same
    expect(await world.exists('chain1', base)).toBe(top)
    expect(world.held).toEqual([digest('a'), digest('b')])
  })

  test('that takes read-only mounts for a layer gets such, and commits them', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const { mounts } = await world.prepare('ns/1/x', '', { [REF]: 'chain0', [DIFF_ID]: digest('0') })
    expect(mounts.at(-1)?.options.at(-1)).toBe('ro')
    await world.client.commit(at({ key: 'ns/1/x', name: 'ns/2/chain0' }))
    const view = await world.client.view(at({ key: 'ns/3/view', parent: 'ns/2/chain0' }))
    expect(view.mounts).toMatchObject([
      { type: 'bind', source: world.treeDirectory(digest('a')), options: ['ro', 'rbind'] },
    ])
  })

  test('unpacks what cannot be shown, into a directory', async () => {
    world.answers.set('chain0', 'ordinary')
    for (const target of ['chain0', 'unknown']) {
      const { mounts } = await world.prepare(`ns/1/${target}`, '', {
        [REF]: target,
        [UID_MAPPING]: '0:5:1',
        [REMOTE]: 'x',
      })
      expect(mounts).toMatchObject([{ type: 'bind', options: ['rw', 'rbind'] }])
      expect(await fs.stat(mounts[0]?.source ?? '')).toMatchObject({ uid: process.getuid?.() })
      await world.client.commit(at({ key: `ns/1/${target}`, name: target }))
      // a mapping, or that it was lazy, is not for an image to say
      expect((await world.client.stat(at({ key: target }))).info?.labels).toEqual({ [REF]: target })
    }
    expect(world.said).toEqual([
      expect.stringContaining('its registry is away'),
      expect.stringContaining('no such image'),
    ])
  })

  test('is told at once of a layer that nobody can unpack', async () => {
    world.answers.set('chain0', 'never')
    const asked = world.prepare('ns/1/x', '', { [REF]: 'chain0' })
    await expect(asked).rejects.toMatchObject({
      code: Code.FailedPrecondition,
      rawMessage: expect.stringContaining('it is no tar'),
    })
  })

  test('and unpacks it by itself, too, as old ones do', async () => {
    const chain = digest('7')
    world.never.set(chain, 'it is no tar')
    await expect(world.prepare(`ns/1/extract-577-a1b2 ${chain}`, '')).rejects.toMatchObject({
      code: Code.FailedPrecondition,
      rawMessage: expect.stringContaining('it is no tar'),
    })
    await world.prepare(`ns/2/extract-577-a1b2 ${digest('8')}`, '')
    await world.prepare(`ns/3/container ${chain}`, '')
  })

  test('and was answered when nothing came does not find it made behind its back', async () => {
    world.answers.set('chain0', 'late')
    const asked = world.prepare('ns/1/x', '', { [REF]: 'chain0' })
    world.late.resolve()
    expect((await asked).mounts).toMatchObject([{ type: 'bind' }])
    await expect.poll(() => world.held).toEqual([])
    expect(await world.found('chain0', '')).toEqual([])
  })

  test('unpacks a layer that is to stand elsewhere than its image has it', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a')).set('chain2', lazyLayer(2, 'c'))
    const base = await world.exists('chain0', '')
    expect((await world.prepare('ns/1/x', base, { [REF]: 'chain2' })).mounts).toHaveLength(1)
    expect(world.said).toEqual([expect.stringContaining('stands on chain1')])
  })

  test('gets the layer of its own namespace, where another has something else under its target', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const one = await world.exists('chain0', '', 'one')
    world.answers.set('chain0', lazyLayer(0, 'b'))
    const two = await world.exists('chain0', '', 'two')
    expect(two).not.toBe(one)
    expect(await world.found('chain0', '', 'one')).toEqual([one])
    // who says no namespace would take the first that it is shown
    world.answers.set('chain0', lazyLayer(0, 'c'))
    expect((await world.prepare('three/1/x', '', { [REF]: 'chain0' })).mounts).toMatchObject([{ type: 'bind' }])
    expect((await world.found('chain0', '')).sort()).toEqual([one, two])
  })
})

describe('a container', () => {
  test('of an image whose layer is true stands on that, where a liar had its chain first', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    world.answers.set('chain0', lazyLayer(0, 'b'))
    const { pulled, chain } = await world.find('chain0')
    const first = chain.slice(0, 1)
    expect(world.replacements.differs('ns', first, pulled.said)).toBe(true)
    expect(world.replacements.differs('other', first, pulled.said)).toBe(false)
    const directoryFor = async (key: string) => {
      const { mounts } = await world.client.view(at({ key, parent: base }))
      return mounts[0]?.source
    }
    // as long as nothing is known against it, it keeps the chain
    await world.replacements.replace('ns', pulled, first)
    expect(await directoryFor('ns/1/view')).toBe(world.treeDirectory(digest('a')))
    world.hidden.set(digest('a'), 'it lies')
    await world.replacements.replace('ns', pulled, first)
    expect(await directoryFor('ns/2/view')).toBe(world.treeDirectory(digest('b')))
    expect(world.replacements.differs('ns', first, pulled.said)).toBe(false)
    expect(world.held).toEqual([digest('b')])
    await world.stop()
    await world.start()
    world.held.push(digest('b'))
    expect(await directoryFor('ns/3/view')).toBe(world.treeDirectory(digest('b')))
  })

  test('stands on the true layer once, though it is put there twice at once, and nothing is held for one that is gone', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    world.hidden.set(digest('a'), 'it lies')
    world.answers.set('chain0', lazyLayer(0, 'b'))
    const { pulled, chain } = await world.find('chain0')
    await Promise.all([
      world.replacements.replace('ns', pulled, chain.slice(0, 1)), // its layers are asked for
      world.replacements.replace('ns', pulled, chain), // and it is seen
    ])
    expect(world.held).toEqual([digest('b')])
    world.hidden.set(digest('b'), 'it lies, too')
    world.answers.set('chain0', lazyLayer(0, 'c'))
    const third = await world.find('chain0')
    const use: PulledImage['use'] = (place, work) =>
      third.pulled.use(place, async (ready) => {
        const working = work(ready) // it has seen what is shown
        await world.client.remove(at({ key: base }))
        return await working
      })
    await world.replacements.replace('ns', { ...third.pulled, use } as PulledImage, chain.slice(0, 1))
    await world.client.cleanup(at({}))
    expect(world.held).toEqual([])
  })

  test('does not start on a layer that its image has no right to, nor on one that is not there now', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    await world.prepare('ns/1/container', base)
    world.hidden.set(digest('a'), 'another image says otherwise')
    const refused = { code: Code.Unavailable, rawMessage: expect.stringContaining('another image says otherwise') }
    await expect(world.client.mounts(at({ key: 'ns/1/container' }))).rejects.toMatchObject(refused)
    await expect(world.prepare('ns/2/container', base)).rejects.toMatchObject(refused)
    world.hidden.clear()
    world.held.length = 0
    await expect(world.client.mounts(at({ key: 'ns/1/container' }))).rejects.toMatchObject({ code: Code.Unavailable })
    await world.client.remove(at({ key: 'ns/1/container' })) // whatever it is made of
  })

  test('in a user namespace has a root directory that is its own, and its layers are mapped', async () => {
    const { mounts } = await world.prepare('ns/1/base', '')
    await world.client.commit(at({ key: 'ns/1/base', name: 'base' }))
    const own = process.getuid?.() === 0 ? 100_000 : process.getuid?.()
    const mapped = await world.prepare('ns/2/container', 'base', { [UID_MAPPING]: `0:${own}:65536` })
    const options = mapped.mounts[0]?.options ?? []
    expect(options).toContain(`uidmap=0:${own}:65536`)
    const upper = options.find((each) => each.startsWith('upperdir='))?.slice(9) ?? ''
    expect(await fs.stat(upper)).toMatchObject({ uid: own })
    expect(mounts).toHaveLength(1)
  })

  test('in a user namespace is written beside its lazy layers, for containerd maps what they have in common', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    world.held.push(digest('a'))
    const base = await world.exists('chain0', '')
    const mapping = { [UID_MAPPING]: `0:${process.getuid?.()}:65536` }
    const pathsOf = ({ mounts }: Awaited<ReturnType<typeof world.prepare>>) =>
      mounts[0]?.options.filter((each) => /^(upper|work)dir=/.test(each))
    const beside = pathsOf(await world.prepare('ns/1/mapped', base, mapping))
    expect(beside).toEqual([
      expect.stringMatching(/=\/trees\/own\/\d+\/work$/),
      expect.stringMatching(/=\/trees\/own\/\d+\/fs$/),
    ])
    const own = expect.stringContaining(join(world.dir, 'snapshots'))
    expect(pathsOf(await world.prepare('ns/2/not-mapped', base))).toEqual([own, own])
    await world.prepare('ns/3/above', base)
    await world.client.commit(at({ key: 'ns/3/above', name: 'written' }))
    expect(pathsOf(await world.prepare('ns/4/mixed', 'written', mapping))).toEqual([own, own])
  })
})

describe('a snapshotter', () => {
  test('knows all after a restart, and removes directories that nobody knows', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    const { mounts } = await world.prepare('ns/1/container', base)
    await world.stop()
    await fs.mkdir(join(world.dir, 'snapshots', '77', 'fs'), { recursive: true })
    await world.start()
    world.held.push(digest('a'))
    expect((await world.client.mounts(at({ key: 'ns/1/container' }))).mounts).toEqual(mounts)
    await expect.poll(() => fs.readdir(join(world.dir, 'snapshots'))).toEqual(['2'])
  })

  test('keeps the directory of a container whose record is damaged', async () => {
    const { mounts } = await world.prepare('ns/1/container', '')
    await fs.writeFile(join(mounts[0]?.source ?? '', 'file'), 'of the container')
    await world.stop()
    const journal = join(world.dir, 'records/journal')
    await fs.writeFile(journal, (await fs.readFile(journal, 'utf8')).replace('active', 'astive'))
    for (let i = 0; i < 2; i++) {
      await world.start()
      await expect(world.client.stat(at({ key: 'ns/1/container' }))).rejects.toMatchObject({ code: Code.NotFound })
      const [kept = ''] = await fs.readdir(join(world.dir, 'snapshots'))
      expect(await fs.readFile(join(world.dir, 'snapshots', kept, 'fs/file'), 'utf8')).toBe('of the container')
      await world.stop()
    }
    await world.start()
  })

  test('removes what it is told to, children first, and lets go of it at the collection’s end', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    await world.prepare('ns/1/container', base)
    await expect(world.client.remove(at({ key: base }))).rejects.toMatchObject({ code: Code.FailedPrecondition })
    await world.client.remove(at({ key: 'ns/1/container' }))
    await world.client.remove(at({ key: base }))
    await expect(world.client.remove(at({ key: base }))).rejects.toMatchObject({ code: Code.NotFound })
    expect(world.held).toEqual([digest('a')])
    await world.client.cleanup(at({}))
    expect(world.held).toEqual([])
    await expect.poll(() => fs.readdir(join(world.dir, 'snapshots'))).toEqual([])
  })

  test('changes labels alone, and an empty one goes', async () => {
    await world.prepare('ns/1/x', '', { 'containerd.io/snapshot/a': '1' })
    const update = async (labels: Record<string, string>, ...paths: string[]) =>
      (await world.client.update(at({ info: { name: 'ns/1/x', labels }, updateMask: { paths } }))).info?.labels
    expect(await update({ 'b.c/d': '2', e: '3' }, 'labels.b.c/d')).toEqual({
      'containerd.io/snapshot/a': '1',
      'b.c/d': '2',
    })
    expect(await update({ 'b.c/d': '' }, 'labels.b.c/d')).toEqual({ 'containerd.io/snapshot/a': '1' })
    expect(await update({ f: '4' })).toEqual({ f: '4' })
    await expect(update({}, 'parent')).rejects.toMatchObject({ code: Code.InvalidArgument })
    await expect(world.client.update(at({ info: { name: 'gone' } }))).rejects.toMatchObject({ code: Code.NotFound })
  })

  test('tells what a layer and a container take', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    expect(await world.client.usage(at({ key: base }))).toMatchObject({ size: 4_096n, inodes: 0n })
    const { mounts } = await world.prepare('ns/1/container', base)
    const upper = mounts[0]?.options.find((each) => each.startsWith('upperdir='))?.slice(9) ?? mounts[0]?.source ?? ''
    await fs.mkdir(join(upper, 'dir'))
    await fs.writeFile(join(upper, 'dir/file'), Buffer.alloc(100_000, 1))
    await fs.link(join(upper, 'dir/file'), join(upper, 'again'))
    const { size, inodes } = await world.client.usage(at({ key: 'ns/1/container' }))
    expect(inodes).toBe(2n)
    expect(size).toBeGreaterThanOrEqual(100_000n)
    expect(size).toBeLessThan(150_000n)
  })

  test('answers in codes that clients switch on', async () => {
    await world.prepare('ns/1/x', '')
    const refused = (call: Promise<unknown>, code: Code) => expect(call).rejects.toMatchObject({ code })
    await refused(world.prepare('ns/1/x', ''), Code.AlreadyExists)
    await refused(world.prepare('ns/2/y', 'gone'), Code.NotFound)
    await refused(world.prepare('ns/2/y', 'ns/1/x'), Code.FailedPrecondition)
    await refused(world.client.mounts(at({ key: 'gone' })), Code.NotFound)
    await refused(world.client.stat(at({ key: 'gone' })), Code.NotFound)
    await refused(world.client.stat({ snapshotter: 'other', key: 'ns/1/x' }), Code.NotFound)
    await refused(world.client.commit(at({ key: 'gone', name: 'x' })), Code.NotFound)
    await refused(
      world.client
        .list(at({ filters: ['=='] }))
        [Symbol.asyncIterator]()
        .next(),
      Code.InvalidArgument,
    )
  })

  test('has its calls counted, by how they were answered', async () => {
    world.answers.set('chain0', lazyLayer(0, 'a'))
    const base = await world.exists('chain0', '')
    await world.prepare('ns/1/container', base)
    await expect(world.prepare('ns/1/container', base)).rejects.toMatchObject({ code: Code.AlreadyExists })
    world.held.length = 0 // its layer cannot be shown now
    await expect(world.client.mounts(at({ key: 'ns/1/container' }))).rejects.toMatchObject({ code: Code.Unavailable })
    const counted = world.times.all().map(({ call, code, counts }) => [call, code, counts.reduce((sum, n) => sum + n)])
    expect(counted).toEqual([
      ['Prepare', 'ok', 2], // a layer that is there is no refusal
      ['List', 'ok', 1],
      ['Prepare', 'refused', 1],
      ['Mounts', 'failed', 1],
    ])
  })

  test('is served in the place of a dead one, for root alone, and in that of nothing else', async () => {
    expect((await fs.stat(join(world.dir, 's.sock'))).mode & 0o777).toBe(0o600)
    const other = join(world.dir, 'config.toml')
    await fs.writeFile(other, 'version = 3')
    await expect(listenGrpc(other, () => {})).rejects.toMatchObject({ code: 'system' })
    await expect(listenGrpc(join(world.dir, 's.sock'), () => {})).rejects.toThrow('another process listens')
    expect(await fs.readFile(other, 'utf8')).toBe('version = 3')
  })

  test('lists in parts, all of it to whoever says no namespace', async () => {
    for (let i = 0; i < 250; i++) await world.prepare(`ns${i % 2}/${i}/x`, '')
    let parts = 0
    const names: string[] = []
    for await (const { info } of world.client.list(at({}))) {
      parts++
      names.push(...info.map(({ name }) => name))
    }
    expect([parts, new Set(names).size]).toEqual([3, 250])
  })

  test('ends soon, whoever keeps a call open', async () => {
    world.answers.set('chain0', 'late')
    const asked = world.prepare('ns/1/x', '', { [REF]: 'chain0' })
    asked.catch(() => {})
    await expect.poll(() => world.client.stat(at({ key: 'gone' })).catch(({ code }) => code)).toBe(Code.NotFound)
    await world.stop()
    await expect(asked).rejects.toMatchObject({ code: expect.anything() })
    await world.start()
  })
})

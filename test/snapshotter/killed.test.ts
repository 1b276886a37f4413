// A server that is killed behind any of its answers has lost nothing of what it answered. What it leaves then is what is on disk at that
// moment: a copy of that, served anew, is compared with the server that goes on.
import fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Folders } from '../../src/snapshotter/folders.ts'
import { type LazyLayer, TARGET } from '../../src/snapshotter/snapshot.ts'
import { Snapshots } from '../../src/snapshotter/snapshots.ts'
import { Snapshotter } from '../../src/snapshotter/snapshotter.ts'
import { runs } from '../fixtures/runs.ts'
import { digest } from '../stores/store.ts'

/** What a client asks for; keys are few, so that calls meet what others made. */
type Call =
  | { of: 'prepare' | 'layer' | 'view'; key: string; parent: string }
  | { of: 'commit'; key: string; name: string }
  | { of: 'update'; key: string; value: string }
  | { of: 'remove'; key: string }
  | { of: 'cleanup' }

const TREES = 'trees'
const keys = fc.constantFrom('ns/1/a', 'ns/2/b', 'ns/3/c', 'ns/4/d')
const parents = fc.constantFrom('', 'ns/1/a', 'ns/2/b')
const call: fc.Arbitrary<Call> = fc.oneof(
  fc.record({ of: fc.constantFrom('prepare' as const, 'layer' as const, 'view' as const), key: keys, parent: parents }),
  fc.record({ of: fc.constant('commit' as const), key: keys, name: keys }),
  fc.record({ of: fc.constant('update' as const), key: keys, value: fc.constantFrom('', 'x', 'y') }),
  fc.record({ of: fc.constant('remove' as const), key: keys }),
  fc.record({ of: fc.constant('cleanup' as const) }),
)

async function serve(dir: string) {
  const snapshots = await Snapshots.open(join(dir, 'records'), () => {})
  const ids = new Set([...snapshots.all()].flatMap(({ id, layer }) => (layer === undefined ? [id] : [])))
  const folders = await Folders.open(
    join(dir, 'snapshots'),
    (id) => ids.has(id),
    'is removed',
    () => {},
  )
  const trees = {
    directoryOf: () => join(dir, TREES),
    has: () => true,
    hold: async () => {},
    letGo: () => {},
    bytesOf: async () => 0,
  }
  const snapshotter = new Snapshotter({
    snapshots,
    folders,
    besideTrees: dir,
    trees,
    names: { whyHidden: () => undefined },
    replacements: { differs: () => false, replace: async () => {} },
    parents: { check: async () => {} },
    pulls: { find: () => Promise.reject(new Error('there is no image')), whyNeverUnpacked: async () => undefined },
    patiently: (promise) => promise,
    overlayOptions: [],
    left: { leave: () => {} },
  })
  return { snapshots, folders, snapshotter }
}

type Served = Awaited<ReturnType<typeof serve>>

const layer: LazyLayer = {
  reference: 'registry.example.com/app:1',
  manifest: digest('manifest'),
  place: 0,
  diffId: digest('DiffID'),
  blob: digest('blob'),
  tree: digest('tree'),
  together: false,
}

/** What a client would see of all of it, with the directories that hold what was written; paths as if they were `dir`'s. */
async function seen({ snapshots, snapshotter }: Served, dir: string) {
  const all = [...snapshots.all()].sort((one, other) => (one.key < other.key ? -1 : 1))
  const mounts = all.map(({ key, kind }) => (kind === 'committed' ? [] : snapshotter.mounts(key)))
  const upper = await Promise.all(
    all.map(
      async ({ id, layer: lazy }) =>
        lazy !== undefined || (await fs.stat(join(dir, 'snapshots', `${id}/fs`))).isDirectory(),
    ),
  )
  return JSON.parse(JSON.stringify({ all, mounts, upper }).replaceAll(dir, ''))
}

async function perform({ snapshots, snapshotter }: Served, asked: Call): Promise<void> {
  switch (asked.of) {
    case 'prepare':
      await snapshotter.prepare({ ...asked, labels: {}, tellsNamespace: true })
      return
    case 'layer': {
      const { key, parent } = asked
      const labels = { [TARGET]: key }
      await snapshots.add({ key, kind: 'committed', parent, labels, id: snapshots.reserve(), layer })
      return
    }
    case 'view':
      await snapshotter.view({ ...asked, labels: {} })
      return
    case 'commit':
      await snapshotter.commit(asked.key, asked.name, {}, '')
      return
    case 'update':
      await snapshotter.update(asked.key, { 'x.y/z': asked.value }, ['labels.x.y/z'])
      return
    case 'remove':
      await snapshotter.remove(asked.key)
      return
    case 'cleanup':
      await snapshotter.cleanup()
  }
}

test('killed behind any answer, a snapshotter has lost nothing, and kept nothing that nobody knows', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(call, { maxLength: 12 }), async (calls) => {
      const home = await fs.mkdtemp(join(tmpdir(), 'killed-'))
      const dir = join(home, 'live')
      await fs.mkdir(join(dir, TREES), { recursive: true })
      const live = await serve(dir)
      try {
        for (const [i, asked] of calls.entries()) {
          await perform(live, asked).catch((error: unknown) => {
            if (!(error instanceof Failure)) throw error // refusals leave everything as it was
          })
          await live.folders.settled()
          const left = join(home, String(i))
          await fs.cp(dir, left, { recursive: true })
          const after = await serve(left)
          expect(await seen(after, left)).toEqual(await seen(live, dir))
          await after.folders.settled()
          const ids = [...after.snapshots.all()].flatMap(({ id, layer: lazy }) => (lazy ? [] : String(id)))
          expect((await fs.readdir(join(left, 'snapshots'))).sort()).toEqual(ids.sort())
          await after.snapshots.close()
        }
      } finally {
        await live.folders.settled()
        await live.snapshots.close()
        await fs.rm(home, { recursive: true })
      }
    }),
    { numRuns: runs(10) },
  )
})

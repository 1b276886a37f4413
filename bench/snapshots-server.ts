// A program of the bench: the snapshots service of an agent that knows many images and containers, over a socket in the folder that it is
// given. Its layers are said to be shown; no registry, no containerd and no mount is there. Prints a line when it answers.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf } from '../src/image/digest.ts'
import { CallTimes } from '../src/snapshotter/call-times.ts'
import { Folders } from '../src/snapshotter/folders.ts'
import { listenGrpc } from '../src/snapshotter/grpc-socket.ts'
import { ParentsCheck } from '../src/snapshotter/parents-check.ts'
import { PresentImages } from '../src/snapshotter/present-images.ts'
import { snapshotsRoutes } from '../src/snapshotter/routes.ts'
import { type LazyLayer, TARGET } from '../src/snapshotter/snapshot.ts'
import { Snapshots } from '../src/snapshotter/snapshots.ts'
import { Snapshotter } from '../src/snapshotter/snapshotter.ts'

const [dir = '.', ...counts] = process.argv.slice(2)
const [images = 0, layers = 0, containers = 0] = counts.map(Number)
const digest = (text: string) => digestOf(new TextEncoder().encode(text))
const log = (message: string) => process.stderr.write(`${message}\n`)
const nothing = async () => {}

const snapshots = await Snapshots.open(join(dir, 'records'), log)
const folders = await Folders.open(join(dir, 'snapshots'), () => true, 'is kept', log)
const tree = join(dir, 'tree')
await mkdir(tree)
const present = new PresentImages()
for (let i = 0; i < images; i++) {
  const chain = Array.from({ length: layers }, (_, place) => digest(`chain ${i} ${place}`))
  const blobs = chain.map((each) => digest(`blob of ${each}`))
  present.put('ns', `registry.example.com/${i}:1`, {
    digest: digest(`manifest ${i}`),
    chain,
    said: blobs.map((blob) => ({ blob, index: digest(`index of ${blob}`) })),
  })
  for (const [place, target] of chain.entries()) {
    const blob = blobs[place] as LazyLayer['blob'] // a blob a layer
    const layer: LazyLayer = {
      reference: `registry.example.com/${i}:1`,
      manifest: digest(`manifest ${i}`),
      place,
      diffId: digest(`DiffID of ${target}`),
      blob,
      index: digest(`index of ${blob}`),
      tree: digest(`tree of ${target}`),
      together: false,
    }
    const parent = place === 0 ? '' : `ns/${i}/layer${place - 1}`
    const labels = { [TARGET]: target }
    await snapshots.add({
      key: `ns/${i}/layer${place}`,
      kind: 'committed',
      parent,
      labels,
      id: snapshots.reserve(),
      layer,
    })
  }
}
for (let i = 0; i < containers; i++) {
  const parent = `ns/${i % images}/layer${layers - 1}`
  await snapshots.add({ key: `ns/${i}/container`, kind: 'active', parent, labels: {}, id: snapshots.reserve() })
}
const names = { whyHidden: () => undefined, isBelieved: () => true, prove: nothing }
const pulls = {
  find: () => Promise.reject(new Error('nothing is pulled')),
  open: () => Promise.reject(new Error('nothing is pulled')),
  whyNeverUnpacked: async () => undefined,
}
const replacements = { differs: () => false, replace: nothing, settled: nothing }
const parents = new ParentsCheck({
  snapshots,
  present,
  images: { caughtUp: nothing },
  contents: { labels: async () => ({}) },
  pulls,
  replacements,
  names,
  log,
})
const trees = {
  directoryOf: () => tree,
  has: () => true,
  hold: nothing,
  letGo: () => {},
  bytesOf: async () => 0,
}
const rest = { besideTrees: dir, pulls, names, replacements, parents, overlayOptions: [], left: { leave: log } }
const snapshotter = new Snapshotter({ snapshots, folders, trees, patiently: (promise) => promise, ...rest })
await listenGrpc(
  join(dir, 'socket'),
  snapshotsRoutes(() => snapshotter, log, new CallTimes()),
)
process.stdout.write('ready\n')

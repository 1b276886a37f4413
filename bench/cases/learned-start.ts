// What a start gains from what an earlier one has read: on the same node, and on another one by a profile beside the image.
import { execFile } from 'node:child_process'
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { addReferrer, referrersTag, writeArtifact } from '../../src/image/artifact.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { PROFILE_TYPE } from '../../src/image/profile.ts'
import type { Case } from '../case.ts'
import { serveLayout, serveTree, TAG } from '../image.ts'
import { COMMAND } from '../product.ts'
import { MANY, type StartCache, someOfMany } from '../some-of-many.ts'

const run = promisify(execFile)

/** Of a node that has started the image before, and has nothing of it any more. */
const REMEMBERS: StartCache = {
  name: 'cache-that-remembers',
  async empty(dir) {
    const all = await readdir(dir).catch(() => []) // it is made by the first start
    const forgotten = all.filter((name) => name !== 'profiles' && name !== 'version')
    await Promise.all(forgotten.map((name) => rm(join(dir, name), { recursive: true })))
  },
}

export const learnedStart: Case = {
  name: 'learned-start',
  explains: `The start of "cold-start", of an image that says nothing of what a start needs. In "learned" this node has started it before, and
    has lost all that it had of it but what it learned; in "published" another node has, and its profile lies beside the image in the
    registry, of which this node knows nothing when the start begins. "prioritized" is an image that was made for this start.`,
  ratios: [
    { metric: 'exit s', of: 'lazylayer, prioritized', over: 'lazylayer, learned', atLeast: 1 / 1.1 },
    { metric: 'exit s', of: 'lazylayer, prioritized', over: 'lazylayer, published', atLeast: 1 / 1.1 },
    { metric: 'exit s', of: 'lazylayer', over: 'lazylayer, learned' },
  ],
  rounds: 10,
  async prepare(context) {
    const { dir, link, defer } = context
    const start = await someOfMany(context, MANY)
    const { source, wanted: prioritized } = start
    const plain = await serveTree({ source, dir: join(dir, 'plain'), link, defer })
    const learned = start.lazily(plain, [], REMEMBERS)
    return [
      { name: 'lazylayer', open: async () => start.lazily(plain) },
      {
        name: 'lazylayer, prioritized',
        open: async () =>
          start.lazily(await serveTree({ source, dir: join(dir, 'prioritized'), link, defer, prioritized })),
      },
      { name: 'lazylayer, learned', open: async () => learned },
      {
        name: 'lazylayer, published',
        async open() {
          await learned()
          const cache = join(dir, REMEMBERS.name)
          const { stdout } = await run(process.execPath, [
            COMMAND,
            'profile',
            'export',
            '--cache',
            cache,
            plain.reference,
          ])
          const layout = join(dir, 'published')
          await cp(join(dir, 'plain'), layout, { recursive: true }) // the very image: one that is built anew has other blobs
          await publish(layout, new TextEncoder().encode(stdout))
          return start.lazily(await serveLayout(layout, TAG, defer, link))
        },
      },
    ]
  },
}

/** Puts a profile beside the image in a layout, as it lies in a registry that lists no referrers by itself. */
async function publish(layout: string, document: Uint8Array): Promise<void> {
  const at = join(layout, 'index.json')
  const index = JSON.parse(await readFile(at, 'utf8'))
  const { mediaType, digest, size } = index.manifests[0] // the one image
  const artifact = writeArtifact(PROFILE_TYPE, document, { mediaType, digest, size }, Date.now())
  const list = addReferrer(undefined, artifact, TAG)
  for (const bytes of [artifact, list]) await writeFile(join(layout, 'blobs/sha256', hex(digestOf(bytes))), bytes)
  index.manifests.push({
    mediaType: 'application/vnd.oci.image.index.v1+json',
    digest: digestOf(list),
    size: list.length,
    annotations: { 'org.opencontainers.image.ref.name': referrersTag(digest) },
  })
  await writeFile(at, JSON.stringify(index))
}

// Sample images of every format: what is mounted is the tree that is expected, and all of it was verified. Images that are bare trees of
// RAFS get layers around them here.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { RUNGS, type Rung } from '../../src/mount/ladder.ts'
import { compare, type Line, listTree, readLines } from '../fixtures/listing.ts'
import { mergeLines } from '../fixtures/merge-lines.ts'
import { bareRafs, writeLayout } from '../fixtures/nydus-image.ts'
import { BARE } from '../format/samples.ts'
import { startAgent } from './agent.ts'
import { lacking, samples } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { ALL, LONG } from './sample.ts'

const TIMEOUT_MS = 300_000
/** Until one is complete: more than one is made only on a busy machine. */
const MOUNTS_MAX = 20
/** The format's own files, which the expected listings lack. */
const OWN = ['.prefetch.landmark', '.no.prefetch.landmark']

/** Of layers 1 and 2: one tree over both, or one of each. */
const IMAGES = ['nydus', 'nydus-zran', 'plain', 'zstd', 'zstd-podman']

const found = samples()
const folder = 'path' in found ? found.path : ''

suite(
  'mounts show what sample images hold',
  'lacking' in found ? found.lacking : lacking(['fusermount3', 'python3']),
  () => {
    let work: WorkDirectory
    let whole: LayoutRegistry
    let bare: LayoutRegistry
    beforeAll(async () => {
      work = await makeWorkDirectory()
      const images = await Promise.all(
        BARE.map(async (name) => [name, await bareRafs(join(folder, 'samples/rafs'), name)] as const),
      )
      await writeLayout(join(work.path, 'bare'), new Map(images))
      whole = await serveLayout(join(folder, 'samples/oci'), work.path)
      bare = await serveLayout(join(work.path, 'bare'), work.path)
    })
    afterAll(async () => {
      await whole?.close()
      await bare?.close()
      await work?.remove()
    })

    const lines = (layer: number) => readLines(join(folder, `samples/expected/layer${layer}.jsonl`))

    /**
     * What a mount shows, and of how many trees, or at least of one, the kernel reads all without an agent.
     * @param kept the rung whose mounts it shares its cache with
     */
    async function shown(registry: LayoutRegistry, tag: string, rung: Rung, kept: Rung = rung) {
      const dir = join(work.path, `mount-${tag}-${rung}-${kept}`)
      await mkdir(dir, { recursive: true })
      const cache = ['--cache', join(work.path, `cache-${tag}-${kept}`)]
      const args = [
        'mount',
        `docker://${registry.host}/image:${tag}`,
        dir,
        ...cache,
        '--cert-dir',
        registry.certDir,
        '--mount',
        rung,
      ]
      const agent = await startAgent(work.path, dir, args)
      try {
        const { mounts } = await agent.status()
        const { kind, complete = 0 } = mounts.find((each) => each.dir === dir) ?? {}
        return { lines: await listTree(dir), complete: kind === 'complete' ? 1 : complete }
      } finally {
        await agent.stop()
      }
    }

    function expectTree(wanted: readonly Line[], actual: readonly Line[], rung: Rung): void {
      // fuse-native has no times before 1970
      const lines = rung === 'portable' ? wanted.map((line) => ({ ...line, mtime: Math.max(0, line.mtime) })) : wanted
      expect(compare(lines, actual, { extra: OWN })).toEqual([])
    }

    /** Once all of it was read, on whichever rung. What an earlier life left is verified for as long as a mount may wait. */
    async function shownAgain(registry: LayoutRegistry, tag: string, kept: Rung) {
      for (let left = MOUNTS_MAX; ; left--) {
        const again = await shown(registry, tag, 'erofs', kept)
        if (again.complete > 0 || left === 0) return again
      }
    }

    async function expectOn(rung: Rung, registry: LayoutRegistry, tag: string, wanted: readonly Line[]): Promise<void> {
      expectTree(wanted, (await shown(registry, tag, rung)).lines, rung)
      const again = await shownAgain(registry, tag, rung)
      expect(again.complete).toBeGreaterThan(0)
      expectTree(wanted, again.lines, 'erofs')
    }

    for (const tag of IMAGES) {
      const wanted = () => mergeLines([lines(1), lines(2)])
      test.concurrent.each(RUNGS)(`${tag} (%s)`, { timeout: TIMEOUT_MS }, (rung) =>
        expectOn(rung, whole, tag, wanted()),
      )
    }
    for (const [i, tag] of BARE.entries()) {
      if (!ALL && i % 2 === 0) {
        test.skip(`${tag} (${LONG})`, () => undefined)
        continue
      }
      // nydus-image gives a root above a parent bootstrap no time
      const wanted = () => lines(1).map((line) => (line.path === '.' ? { ...line, mtime: 0 } : line))
      test.concurrent.each(RUNGS)(`${tag} (%s)`, { timeout: TIMEOUT_MS }, (rung) => expectOn(rung, bare, tag, wanted()))
    }
  },
)

// What mounts show is what the images hold: every eStargz sample layer by layer, and the real image against its own tars.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { RUNGS, SERVE_RUNGS } from '../../src/mount/ladder.ts'
import { compare, type Line, listTree, readLines } from '../fixtures/listing.ts'
import { mergeLines } from '../fixtures/merge-lines.ts'
import { tarListing } from '../fixtures/tar-listing.ts'
import { sampleLayers } from '../format/samples.ts'
import { type Agent, startAgent } from './agent.ts'
import { lacking, samples } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 120_000
/** The format's own files, which a layer's expected listing lacks. */
const OWN = ['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark']
const found = samples()
const folder = 'path' in found ? found.path : ''
const reason = 'lacking' in found ? found.lacking : lacking(['fusermount3'])

suite('mounts show what images hold', reason, () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await serveLayout(join(folder, 'samples/oci'), work.path)
  })
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  const TAGS = ['esgz', 'esgz-min', 'esgz-ext']
  const cases = <Rung>(rungs: readonly Rung[]) => TAGS.flatMap((tag) => rungs.map((rung) => [tag, rung] as const))

  for (const [tag, rung] of cases(SERVE_RUNGS)) {
    test(`each layer of ${tag} as a lower directory (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const root = join(work.path, `store-${tag}-${rung}`)
      const flags = [
        '--cache',
        join(work.path, `cache-${tag}-${rung}`),
        '--cert-dir',
        registry.certDir,
        '--mount',
        rung,
      ]
      agent = await startAgent(work.path, root, ['serve', root, '--diffid', 'claimed', ...flags])
      const image = Buffer.from(`${registry.host}/samples:${tag}`).toString('base64')
      for (const [i, { descriptor }] of sampleLayers('samples/oci', tag).entries()) {
        const shown = await listTree(join(root, 'layers', image, descriptor.digest, 'diff'))
        const expected = readLines(join(folder, `samples/expected/layer${i + 1}.jsonl`))
        expect(compare(expected, shown, { extra: OWN })).toEqual([])
      }
    })
  }

  for (const [tag, rung] of cases(RUNGS)) {
    test(`the whole of ${tag} as a root filesystem (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const dir = join(work.path, `mount-${tag}-${rung}`)
      await mkdir(dir)
      const image = `docker://${registry.host}/samples:${tag}`
      const flags = [
        '--cache',
        join(work.path, `cache-${tag}-${rung}`),
        '--cert-dir',
        registry.certDir,
        '--mount',
        rung,
      ]
      agent = await startAgent(work.path, dir, ['mount', image, dir, ...flags])
      const layers = [1, 2].map((i) => readLines(join(folder, `samples/expected/layer${i}.jsonl`)))
      expect(compare(mergeLines(layers), await listTree(dir), { extra: OWN })).toEqual([])
    })
  }

  test.each(RUNGS)('the real image equals its layers unpacked by tar (%s)', { timeout: TIMEOUT_MS }, async (rung) => {
    const dir = join(work.path, `mount-py-${rung}`)
    await mkdir(dir)
    const image = `oci:${join(folder, 'images/py-esgz')}:py`
    const cache = join(work.path, `cache-py-${rung}`)
    agent = await startAgent(work.path, dir, ['mount', image, dir, '--cache', cache, '--mount', rung])
    const layers = sampleLayers('images/py-esgz', 'py').map(({ path }) => tarListing(path) as Line[])
    expect(layers.map((lines) => lines.length > 1000)).toEqual([true, true])
    expect(compare(mergeLines(layers), await listTree(dir), { extra: OWN })).toEqual([])
  })
})

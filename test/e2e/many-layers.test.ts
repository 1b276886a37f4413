// Thousands of layers in one store: the mount table stays bounded, and the last lookup costs what the first did.
//
// All 5,000: LAZYLAYER_TESTS=all LAZYLAYER_MANY_LAYERS=5000 npx vitest run test/e2e/many-layers.test.ts
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeEstargz } from '../../src/build/estargz.ts'
import { TAR_SIZE, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { COVERS_MAX } from '../../src/mount/kernel-mounts.ts'
import { mountTable } from '../../src/mount/mount-table.ts'
import { json, MemoryShelf, OCI_CONFIG, OCI_MANIFEST } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { type Agent, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { ALL, LONG } from './sample.ts'

const LAYERS = Number(process.env.LAZYLAYER_MANY_LAYERS ?? 1100)
const PER_IMAGE = 100
/** What is compared: at the beginning and at the end. */
const SAMPLE = 100
const TIMEOUT_MS = 600_000

const takesAMinute = ALL ? undefined : `it takes a minute in which nothing else can run: ${LONG}`
suite(`a store of ${LAYERS} layers`, takesAMinute ?? lacking(['fusermount3']), () => {
  let work: WorkDirectory
  let registry: FakeRegistry
  let agent: Agent | undefined
  let root: string
  /** Paths of the layers' directories, in the order of their images. */
  const dirs: string[] = []

  beforeAll(async () => {
    work = await makeWorkDirectory()
    root = join(work.path, 'store')
    const shelf = new MemoryShelf()
    registry = await startRegistry({ shelf })
    await mkdir(join(work.path, 'certs'))
    await writeFile(join(work.path, 'certs/ca.crt'), registry.cert)
    for (let first = 0; first < LAYERS; first += PER_IMAGE) {
      const tag = `i${first}`
      const numbers = Array.from({ length: Math.min(PER_IMAGE, LAYERS - first) }, (_, i) => first + i)
      const layers = await addImage(shelf, tag, numbers, work.path)
      const reference = Buffer.from(`${registry.host}/many:${tag}`).toString('base64')
      dirs.push(...layers.map((each) => join(root, 'layers', reference, each.annotations[TOC_DIGEST] as string)))
    }
  }, TIMEOUT_MS)
  afterAll(async () => {
    await agent?.stop()
    await registry?.close()
    await work?.remove()
  })

  test('lookups cost the same from first to last, and mounts make room for one another', {
    timeout: TIMEOUT_MS,
  }, async () => {
    agent = await startAgent(work.path, root, [
      ...[
        'serve',
        root,
        '--cache',
        join(work.path, 'cache'),
        '--cert-dir',
        join(work.path, 'certs'),
        '--mount',
        'erofs',
      ],
    ])
    const usage = async (): Promise<Usage> => {
      const { counters } = await (agent as Agent).status()
      const { pid } = agent as Agent
      const process = await readFile(`/proc/${pid}/status`, 'utf8')
      const cpu = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? []
      return {
        requests: registry.seen.length,
        lookups: counters.lookups as number,
        rssKb: Number(/VmRSS:\s+(\d+)/.exec(process)?.[1]),
        descriptors: Number((await succeed('sh', ['-c', `ls /proc/${pid}/fd | wc -l`])).trim()),
        cpuMs: (Number(cpu[11]) + Number(cpu[12])) * 10, // 100 ticks a second
      }
    }
    const samples = [await usage()]
    for (let at = 0; at < LAYERS; at += SAMPLE) {
      await lookUp(dirs.slice(at, at + SAMPLE))
      if (at === 0) {
        // an engine says that it uses one, and a container is on another: both keep their mounts
        await command('touch', [join(dirs[1] as string, 'use')])
        await overlay(dirs[2] as string)
      }
      samples.push(await usage())
      expect((await covers()).length).toBeLessThanOrEqual(COVERS_MAX)
    }
    const differences = samples.slice(1).map((each, i) => {
      const before = samples[i] as Usage
      return {
        requests: each.requests - before.requests,
        lookups: each.lookups - before.lookups,
        cpuMs: each.cpuMs - before.cpuMs,
      }
    })
    const [first, last] = [differences[1], differences.at(-1)] as [Cost, Cost] // the first of all warms up
    const [start, end] = [samples[1], samples.at(-1)] as [Usage, Usage]
    const listed = LAYERS - SAMPLE
    process.stderr.write(
      `${LAYERS} layers: ${((end.rssKb - start.rssKb) / listed).toFixed(1)} KiB and ` +
        `${((end.descriptors - start.descriptors) / listed).toFixed(2)} descriptors a layer; of ${SAMPLE} lookups the first ` +
        `took ${JSON.stringify(first)}, the last ${JSON.stringify(last)}; unmounting follows\n`,
    )
    // the device, once here and once in the native part, and its ready file: 5,000 layers fit into the 20,000 of a usual limit
    expect((end.descriptors - start.descriptors) / listed).toBeLessThanOrEqual(3.1)
    expect(last.requests).toBeLessThanOrEqual(first.requests + 2)
    expect(last.lookups).toBeLessThanOrEqual(first.lookups * 1.5)
    // the newest have a mount each, and so has the one in use
    const mounted = new Set(await covers())
    for (const each of dirs.slice(-SAMPLE)) expect(mounted).toContain(join(each, 'diff'))
    for (const each of dirs.slice(1, 3)) expect(mounted).toContain(join(each, 'diff'))
    const status = await agent.status()
    expect(status.layers).toBe(LAYERS)
    expect(status.counters.mounts_evicted).toBeGreaterThanOrEqual(LAYERS - COVERS_MAX)
    // the oldest, which nobody uses, is answered by FUSE
    expect(mounted).not.toContain(join(dirs[0] as string, 'diff'))
    expect(await succeed('cat', [join(dirs[0] as string, 'diff/name')])).toBe('layer 0\n')
    await succeed('umount', [join(work.path, 'merged')])
    expect(await agent.stop()).toBe(0)
    agent = undefined
    expect(await mountsBelow(root)).toEqual([])
  })

  /** As Podman does, by a link. */
  async function overlay(layer: string): Promise<void> {
    for (const each of ['l', 'upper', 'work', 'merged']) await mkdir(join(work.path, each))
    await symlink(join(layer, 'diff'), join(work.path, 'l/LINK'))
    const options = `lowerdir=${work.path}/l/LINK,upperdir=${work.path}/upper,workdir=${work.path}/work`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, join(work.path, 'merged')])
  }

  const covers = async () =>
    (await mountTable())
      .filter((each) => each.type === 'erofs' && each.point.startsWith(root))
      .map((each) => each.point)
})

interface Cost {
  requests: number
  lookups: number
  cpuMs: number
}

interface Usage extends Cost {
  rssKb: number
  descriptors: number
}

/** An image of these layers, each with a file that tells its number. */
async function addImage(
  shelf: MemoryShelf,
  tag: string,
  numbers: readonly number[],
  work: string,
): Promise<Descriptor[]> {
  const layers: Descriptor[] = []
  const diffIds: string[] = []
  for (const number of numbers) {
    const path = join(work, 'blob')
    const content = new TextEncoder().encode(`layer ${number}\n`)
    const written = await writeEstargz([{ path: 'name', type: 'file', content }], path)
    const annotations = { [TOC_DIGEST]: written.tocDigest, [TAR_SIZE]: `${written.uncompressedSize}` }
    layers.push({ ...shelf.addBlob(await readFile(path)), annotations })
    diffIds.push(written.diffId)
    await rm(path)
  }
  const rootfs = { type: 'layers', diff_ids: diffIds }
  const config = shelf.addBlob(json({ os: 'linux', architecture: 'amd64', rootfs }), OCI_CONFIG)
  shelf.addManifest({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, OCI_MANIFEST, tag)
  return layers
}

/** What an engine does with each: three stats, and it reads `info`, which waits for the mount. */
async function lookUp(dirs: readonly string[]): Promise<void> {
  const script = `
import os, sys
for each in sys.argv[1:]:
    for name in ('diff', 'info', 'blob'): os.stat(each + '/' + name)
    with open(each + '/info') as file: file.read()
`
  await succeed(PYTHON, ['-c', script, ...dirs], { timeoutMs: 300_000 })
}

// Many programs read images of all formats while agents are killed, stopped and replaced, the registry misbehaves and the cache makes room:
// `npm run soak:load`, for LAZYLAYER_LOAD_SECONDS. At the end nothing was wrong, nothing hangs, and nothing is left behind.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { hex } from '../../src/image/digest.ts'
import type { Fault } from '../fake/faults.ts'
import { SAMPLES } from '../format/samples.ts'
import { Random } from '../soak/random.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { nydusLayers, writeLayers } from './nydus-image.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { type VerifyingReader, verifyingReader } from './verifying-reader.ts'

const SECONDS = Number(process.env.LAZYLAYER_LOAD_SECONDS ?? 0)
const SEED = Number(process.env.LAZYLAYER_LOAD_SEED ?? 1)
/** Of samples/oci; all show the same. */
const SAMPLE_TAGS =
  SAMPLES === undefined ? [] : ['esgz', 'esgz-min', 'esgz-ext', 'zstd', 'zstd-podman', 'nydus', 'nydus-zran', 'plain']
const ESTARGZ = 8
const NYDUS = 4
const FILES = 24
/** Each of four threads rests so long between two reads: 80 of them would leave no processor to the agents. */
const REST_MS = 100
/** Less than all that is read: what is in no mount's use has to go again. */
const CACHE_MAX = '40MiB'
/** Between two of the things that happen to agents. */
const PAUSE_MAX_MS = 700
/** A descriptor or two of what comes and goes. */
const DESCRIPTORS_SLACK = 16
const KEEPER_GROWTH_MAX_KIB = 2048

/** What a client gets over by asking again. */
const FAULTS: readonly ((random: Random) => Partial<Fault>)[] = [
  () => ({ reset: true }),
  () => ({ status: 503 }),
  () => ({ status: 500 }),
  () => ({ flipAt: 100 }),
  (random) => ({ cutAfter: random.below(5000) }),
  (random) => ({ endAfter: random.below(5000) }),
  () => ({ goaway: 'refuse', over: 'h2' }),
  (random) => ({ delayMs: random.below(2000) }),
  () => ({ bytesPerSecond: 20_000 }),
]

interface Held {
  descriptors: number
  residentKib: number
}

async function heldBy(pid: number): Promise<Held> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return {
    descriptors: (await readdir(`/proc/${pid}/fd`)).length,
    residentKib: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]),
  }
}

const parentOf = async (pid: number) =>
  Number(/^PPid:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1])

suite(
  'load',
  SECONDS === 0 ? 'npm run soak:load runs it for minutes' : lacking(['fusermount3', 'mount', 'tar', 'find']),
  () => {
    let work: WorkDirectory
    let registry: LayoutRegistry
    let samples: LayoutRegistry | undefined
    const random = new Random(SEED)
    const at = (...path: string[]) => join(work.path, ...path)
    const agents: Agent[] = []
    const readers: VerifyingReader[] = []

    beforeAll(async () => {
      process.env.LAZYLAYER_REST_MS = `${REST_MS}`
      work = await makeWorkDirectory()
      for (let i = 0; i < ESTARGZ + NYDUS; i++) await makeImage(i)
      registry = await serveLayout(at('layout'), work.path)
      if (SAMPLES === undefined) return
      samples = await serveLayout(join(SAMPLES, 'samples/oci'), work.path)
      await extract(join(SAMPLES, 'samples/oci'), at('plain-samples'))
    }, 600_000)
    afterAll(async () => {
      delete process.env.LAZYLAYER_REST_MS
      for (const each of readers.splice(0)) await each.end()
      for (const each of agents.splice(0)) await each.stop()
      await registry?.close()
      await samples?.close()
      await work?.remove()
    })

    async function makeImage(i: number): Promise<void> {
      const plain = at(`plain-${i}`, 'dir')
      await mkdir(plain, { recursive: true })
      const entries: SourceEntry[] = [{ path: 'dir', type: 'dir' }]
      for (let file = 0; file < FILES; file++) {
        const size = file % 4 === 0 ? 400_000 : 9_000
        const content = Buffer.from(Array.from({ length: size }, () => random.below(256)))
        await writeFile(join(plain, `f${file}`), content)
        entries.push({ path: `dir/f${file}`, type: 'file', content })
      }
      if (i < ESTARGZ) await writeImage({ dir: at('layout'), tag: `i${i}`, layers: [{ kind: 'estargz', entries }] })
      else await writeLayers(at('layout'), `i${i}`, await nydusLayers(entries))
    }

    /** The files of the image of samples that is as most are. */
    async function extract(layout: string, dir: string): Promise<void> {
      const json = async (path: string) => JSON.parse(await readFile(join(layout, path), 'utf8'))
      const { manifests } = await json('index.json')
      const plain = manifests.find((each: { annotations?: Record<string, string> }) =>
        Object.values(each.annotations ?? {}).includes('plain'),
      )
      await mkdir(dir)
      for (const { digest } of (await json(`blobs/sha256/${hex(plain.digest)}`)).layers) {
        await succeed('sh', ['-c', EXTRACT, 'sh', join(layout, 'blobs/sha256', hex(digest)), dir])
      }
      await succeed('find', [dir, '!', '-type', 'f', '!', '-type', 'd', '-delete'])
    }

    async function start(dir: string, args: readonly string[], certDir: string): Promise<Agent> {
      await mkdir(dir, { recursive: true })
      const rest = ['--keeper-patience', '60', '--background', 'full', '--cache', at('cache'), '--cache-max', CACHE_MAX]
      const agent = await startAgent(work.path, dir, [...args, ...rest, '--cert-dir', certDir])
      agents.push(agent)
      return agent
    }

    async function mountImage(name: string, from: LayoutRegistry, tag: string, plain: string): Promise<void> {
      await start(at(name), ['mount', `${from.host}/image:${tag}`, at(name)], from.certDir)
      readers.push(await verifyingReader(at(name), plain))
    }

    /** What an engine does before it takes the layer of an image. @returns the container's root filesystem */
    async function container(root: string, i: number): Promise<string> {
      const image = `${registry.host}/image:i${i}`
      const { manifests } = JSON.parse(await readFile(at('layout/index.json'), 'utf8'))
      const { digest } = manifests.find((each: object) => JSON.stringify(each).includes(`"i${i}"`))
      const { layers } = JSON.parse(await readFile(at('layout/blobs/sha256', hex(digest)), 'utf8'))
      const layer = join(root, 'layers', Buffer.from(image).toString('base64'), layers[0].annotations[TOC_DIGEST])
      // a lookup without progress ends after 2 s, on a machine with much else to do before anything was done
      const look = () => command('stat', [join(layer, 'diff'), join(layer, 'info'), join(layer, 'blob')])
      await expect.poll(look).toMatchObject({ code: 0 })
      await succeed('cat', [join(layer, 'info')])
      const home = at(`container-${i}`)
      for (const each of ['upper', 'work', 'merged']) await mkdir(join(home, each), { recursive: true })
      await succeed('ln', ['-s', join(layer, 'diff'), join(home, 'lower')]) // colons of paths are separators
      const options = `lowerdir=lower,upperdir=${home}/upper,workdir=${home}/work`
      await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, join(home, 'merged')], { cwd: home })
      return join(home, 'merged')
    }

    test('nothing is wrong, nothing hangs, and nothing is left', { timeout: 600_000 + SECONDS * 2000 }, async () => {
      const containers: string[] = []
      await start(at('store'), ['serve', at('store')], registry.certDir)
      for (let i = 0; i < ESTARGZ; i++) {
        containers.push(await container(at('store'), i))
        readers.push(await verifyingReader(containers[i] as string, at(`plain-${i}`)))
      }
      for (let i = ESTARGZ; i < ESTARGZ + NYDUS; i++) await mountImage(`m${i}`, registry, `i${i}`, at(`plain-${i}`))
      for (const tag of SAMPLE_TAGS) {
        if (samples !== undefined) await mountImage(tag, samples, tag, at('plain-samples'))
      }
      const began = performance.now()
      const keepers = await Promise.all(agents.map((each) => parentOf(each.pid)))
      const before = { agent: await heldBy((await store()).pid), keepers: await Promise.all(keepers.map(heldBy)) }
      const mounts = await mountsBelow(work.path)
      const done = { kills: 0, stops: 0, upgrades: 0, faults: 0 }
      while (performance.now() - began < SECONDS * 1000) {
        await happen(done)
        await sleep(random.below(PAUSE_MAX_MS))
      }
      for (const each of [registry, samples]) if (each !== undefined) each.faults = []
      await Promise.all(readers.map((each) => each.more()))
      const found = await Promise.all(readers.splice(0).map((each) => each.end()))
      const after = { agent: await heldBy((await store()).pid), keepers: await Promise.all(keepers.map(heldBy)) }
      const sum = (of: (each: (typeof found)[number]) => number) => found.reduce((all, each) => all + of(each), 0)
      const growth = after.keepers.map(({ residentKib }, i) => residentKib - (before.keepers[i]?.residentKib ?? 0))
      console.log(
        JSON.stringify({
          seconds: SECONDS,
          readers: found.length * 4,
          images: found.length,
          ...done,
          reads: sum(({ reads }) => reads),
          wrong: sum(({ wrong }) => wrong),
          errors: sum(({ errors }) => errors.length),
          longestMs: Math.round(Math.max(...found.map(({ longestMs }) => longestMs))),
          agent: [before.agent, after.agent],
          keepersGrewKib: Math.max(...growth),
          cacheBytes: (await store()).cache?.bytes,
        }),
      )
      expect(found.flatMap(({ errors }) => errors)).toEqual([])
      expect(sum(({ wrong }) => wrong)).toBe(0)
      expect((await mountsBelow(work.path)).toSorted()).toEqual(mounts.toSorted())
      expect(after.keepers.map(({ descriptors }) => descriptors)).toEqual(
        before.keepers.map(({ descriptors }) => descriptors),
      )
      expect(Math.max(...growth)).toBeLessThan(KEEPER_GROWTH_MAX_KIB)
      expect(after.agent.descriptors).toBeLessThan(before.agent.descriptors + DESCRIPTORS_SLACK)
      for (const each of containers) await succeed('umount', [each])
      for (const each of agents.splice(0)) expect(await each.stop()).toBe(0)
      expect(await mountsBelow(work.path)).toEqual([work.path])
    })

    const store = () => (agents[0] as Agent).status()

    /** Whoever is replaced right now is left alone. */
    async function happen(done: { kills: number; stops: number; upgrades: number; faults: number }): Promise<void> {
      const agent = random.oneOf(agents)
      const status = await agent.status().catch(() => undefined)
      const what = random.below(20)
      if (what < 6) {
        const from = random.oneOf([registry, samples ?? registry])
        from.faults = [{ match: /\/blobs\//, until: 1 + random.below(3), ...random.oneOf(FAULTS)(random) }]
        done.faults++
      } else if (status === undefined) {
        return
      } else if (what < 17) {
        process.kill(status.pid, 'SIGKILL')
        done.kills++
      } else if (what < 18) {
        process.kill(status.pid, 'SIGSTOP')
        done.stops++
      } else {
        // it may be killed meanwhile
        await lazylayer(work.path, 'upgrade', status.root)
        done.upgrades++
      }
    }
  },
)

/** A layer over those below: what its marks delete goes first. */
const EXTRACT = `tar -tzf "$1" | grep -F .wh. | while read -r mark; do
  name=\${mark##*/}
  case $name in
    .wh..wh..opq) find "$2/\${mark%/*}" -mindepth 1 -delete ;;
    *) rm -rf "$2/\${mark%"$name"}\${name#.wh.}" ;;
  esac
done
tar -xzf "$1" -C "$2" --no-same-owner --exclude='.wh.*'`

// A real registry with images and agents over one store, for tests of real engines; most of them run py-esgz.
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Agent, startAgent } from './agent.ts'
import { lacking, REGISTRY_PROGRAMS, samples } from './engines/needs.ts'
import { type Flavour, Podman } from './engines/podman.ts'
import { type DockerRegistry, type Request, startDockerRegistry } from './engines/registry.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const images = samples()
/** Why it cannot be had here. */
export const PY_LACKS = 'lacking' in images ? images.lacking : lacking([...REGISTRY_PROGRAMS, 'fusermount3'])
/** The OCI layout that has it under `py`. */
export const PY_LAYOUT = join('path' in images ? images.path : '', 'images/py-esgz')
/** What it prints. */
export const HELLO = 'hello from flask\n'
/** The config's digest, which is the ID of the image where its layers bear their DiffIDs. */
export const PY_ID = 'd8b0193caf556c57e2260a8f21ca54f6058b8ba801a60a0cde4a7b98fb976c1c'
/** The only blob that engines must fetch themselves. */
export const PY_CONFIG = `/v2/py/blobs/sha256:${PY_ID}`
/** Of both layers. */
export const PY_SIZE = 52_943_606 + 15_783_295

const HELPER = fileURLToPath(new URL('../../src/cli/auth-helper.js', import.meta.url))

/** The additional layer store, or the additional image store. */
export type Door = 'layers' | 'images'

/** A registry, and a store with its agent. */
export interface EngineStore {
  work: WorkDirectory
  registry: DockerRegistry
  /** The first image's reference. */
  image: string
  /** The store's, whether or not an agent serves it. */
  root: string
  /** An agent over `root` with a cache of that name. */
  serve(cache: string, ...more: string[]): Promise<Agent>
  /** Ends the agent, if one runs. @returns its exit code */
  stop(): Promise<number>
  /** A program that runs the auth helper for `root`, also in a root that has no Node. */
  installHelper(): Promise<string>
  /** An engine that looks through one of the store's doors, with the helper installed before. */
  startEngine(flavour: Flavour, door: Door): Promise<Podman>
  close(): Promise<void>
}

/** As most tests have it. */
export type PyStore = EngineStore

/** With py-esgz. Root only. */
export function makePyStore(): Promise<EngineStore> {
  return makeStore(async () => ({ layout: PY_LAYOUT, tags: ['py'] }))
}

/** With the images that `make` leaves in a layout, below a directory that it is given; each is called as its tag. Root only. */
export async function makeStore(
  make: (dir: string) => Promise<{ layout: string; tags: readonly string[] }>,
): Promise<EngineStore> {
  const work = await makeWorkDirectory()
  const registry = await startDockerRegistry({ dir: work.path })
  const { layout, tags } = await make(work.path)
  for (const tag of tags) await registry.pushLayout(layout, tag, tag)
  const root = join(work.path, 'store')
  let agent: Agent | undefined
  const stop = async () => {
    const ended = agent?.stop() ?? Promise.resolve(0)
    agent = undefined
    return await ended
  }
  return {
    work,
    registry,
    image: `${registry.host}/${tags[0]}:${tags[0]}`,
    root,
    async serve(cache, ...more) {
      const args = ['serve', root, '--cache', join(work.path, cache), '--cert-dir', registry.certDir, ...more]
      agent = await startAgent(work.path, root, args)
      return agent
    },
    stop,
    installHelper: () => installHelper(work.path, root),
    async startEngine(flavour, door) {
      return await Podman.start({
        flavour,
        work: work.path,
        trust: [registry],
        additionalLayerStores: door === 'layers' ? [`${join(root, 'layers')}:ref`] : [],
        additionalImageStores: door === 'images' ? [join(root, 'images')] : [],
        registriesConf: `additional-layer-store-auth-helper = "${helperIn(work.path)}"\n`,
      })
    },
    async close() {
      await stop()
      await registry.stop()
      await work.remove()
    },
  }
}

/** Not the agent's. */
export function byEngine(requests: readonly Request[]): Request[] {
  return requests.filter(({ userAgent }) => userAgent !== 'lazylayer')
}

const helperIn = (work: string) => join(work, 'bin/helper')

/** A program in `work` that runs the auth helper for `root`, also in a root that has no Node. */
async function installHelper(work: string, root: string): Promise<string> {
  const bin = join(work, 'bin')
  await mkdir(bin)
  await chmod(work, 0o755)
  await copyFile(process.execPath, join(bin, 'node'))
  await copyFile(HELPER, join(bin, 'auth-helper.js'))
  await writeFile(join(bin, 'package.json'), '{"type": "module"}')
  const helper = helperIn(work)
  await writeFile(helper, `#!/bin/sh\nLAZYLAYER_ROOT=${root} exec ${bin}/node ${bin}/auth-helper.js\n`, { mode: 0o755 })
  return helper
}

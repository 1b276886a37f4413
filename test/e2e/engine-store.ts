// A real registry with images and agents over one store, for tests of real engines.
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Agent, HELPER, startAgent } from './agent.ts'
import { APP_PROGRAMS, type AppImage, writeApp } from './app-image.ts'
import { lacking } from './engines/needs.ts'
import { type Flavour, Podman } from './engines/podman.ts'
import type { DockerRegistry, Request } from './engines/registry.ts'
import { startEngineRegistry } from './engines/small-registry.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

/** Why no real engine can be shown an image here. */
export const STORE_LACKS = lacking([...APP_PROGRAMS, 'fusermount3'])

/** The additional layer store, or the additional image store. */
export type Door = 'layers' | 'images'

/** A registry, which engines may push to where Debian's is installed, and a store with its agent. */
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
  /** A program that runs the auth helper for `root`, also in another root. */
  installHelper(): Promise<string>
  /** An engine that looks through one of the store's doors, with the helper installed before. */
  startEngine(flavour: Flavour, door: Door): Promise<Podman>
  close(): Promise<void>
}

export interface AppStore extends EngineStore {
  app: AppImage
}

/** With an image that runs. Root only. @param write leaves it in a directory, or says where it is */
export async function makeAppStore(write: (layout: string) => Promise<AppImage> = writeApp): Promise<AppStore> {
  let app: AppImage | undefined
  const store = await makeStore(async (work) => {
    app = await write(join(work, 'app'))
    return { layout: app.layout, tags: [app.tag] }
  })
  return { ...store, app: app as AppImage } // it was made
}

/** With the images that `make` leaves in a layout, below a directory that it is given; each is called as its tag. Root only. */
export async function makeStore(
  make: (dir: string) => Promise<{ layout: string; tags: readonly string[] }>,
): Promise<EngineStore> {
  const work = await makeWorkDirectory()
  const registry = await startEngineRegistry({ dir: work.path })
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

/** Without blobs that an agent read whole: what it believes it proves when nobody has asked for a while, which is soon on a busy machine. */
export function withoutProofs(requests: readonly Request[]): Request[] {
  const isProof = ({ kind, userAgent, range }: Request) => kind === 'blob' && userAgent === 'lazylayer' && range === ''
  return requests.filter((each) => !isProof(each))
}

/** And without looking for a published profile: an agent does that where it has not seen a start itself, as of layers that were complete before it. */
export function ofImage(requests: readonly Request[]): Request[] {
  const isLookup = ({ uri, userAgent }: Request) =>
    userAgent === 'lazylayer' && /^\/v2\/$|\/referrers\/|\/manifests\/sha256-/.test(uri)
  return withoutProofs(requests).filter((each) => !isLookup(each))
}

const helperIn = (work: string) => join(work, 'bin/helper')

/** A program in `work` that runs the auth helper for `root`, also in another root, which has nothing of this project. */
async function installHelper(work: string, root: string): Promise<string> {
  const bin = join(work, 'bin')
  await mkdir(bin)
  await chmod(work, 0o755)
  await copyFile(HELPER, join(bin, 'auth-helper'))
  const helper = helperIn(work)
  await writeFile(helper, `#!/bin/sh\nLAZYLAYER_ROOT=${root} exec ${bin}/auth-helper\n`, { mode: 0o755 })
  return helper
}

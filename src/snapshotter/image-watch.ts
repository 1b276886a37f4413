// Looks at every image that containerd has. containerd reuses a layer that it knows under a chain without asking, so an image may come that
// the snapshotter is asked nothing about, and that means something else by that chain than the image before it. Whoever has no right to
// the chain then loses it, and the other's layer takes its place.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, Failure } from '../errors.ts'
import { choosePlatform, type Platform } from '../image/manifest.ts'
import type { Layers } from '../layer/layers.ts'
import type { ImageSource, ImageTarget } from './image-events.ts'
import type { ImageFinder } from './image-finder.ts'
import type { Pulls } from './pulls.ts'
import type { Replacements } from './replacements.ts'
import { saidLayers } from './said-layers.ts'

export interface ImageWatchParts {
  source: Pick<ImageSource, 'all' | 'changes'>
  finder: Pick<ImageFinder, 'manifestOf'>
  pulls: Pick<Pulls, 'open'>
  /** Of each name that this containerd asks by. */
  replacements: readonly Pick<Replacements, 'differs' | 'replace' | 'namespaces'>[]
  platform: Platform
  layers: Pick<Layers, 'plan'>
  signal: AbortSignal
  log(message: string): void
}

/** containerd may be started behind the agent, or again. */
const AGAIN_MIN_MS = 500
const AGAIN_MAX_MS = 5_000

/** Until `signal` aborts; never rejects. */
export async function watchImages(parts: ImageWatchParts): Promise<void> {
  const { source, signal, log } = parts
  for (let waitMs = AGAIN_MIN_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, AGAIN_MAX_MS)) {
    const seen = (target: ImageTarget) =>
      look(target, parts).catch((error) => log(`image ${target.digest}: ${describe(error)}`))
    try {
      // those of before, when those of from now on are told of
      const begun = () => {
        waitMs = AGAIN_MIN_MS
        void lookAtAll(parts, seen).catch((error) => log(`images of containerd are not looked at: ${describe(error)}`))
      }
      for await (const target of source.changes(begun, signal)) await seen(target)
    } catch {
      // it is away, which its clients are told
    }
    await sleep(waitMs, undefined, { signal, ref: false }).catch(() => {}) // then it is over
  }
}

async function lookAtAll({ source, replacements }: ImageWatchParts, seen: (target: ImageTarget) => Promise<void>) {
  const namespaces = new Set(replacements.flatMap((each) => [...each.namespaces()]))
  for (const namespace of namespaces) for (const target of await source.all(namespace)) await seen(target)
}

/** Costs no more than reading the manifest, unless it says otherwise of a layer that is shown. */
async function look({ namespace, name, digest }: ImageTarget, parts: ImageWatchParts): Promise<void> {
  const { finder, pulls, replacements, platform, layers } = parts
  const found = await finder.manifestOf(namespace, digest, (index) => {
    try {
      return choosePlatform(index, platform, `image ${digest}`).digest
    } catch (error) {
      if (error instanceof Failure) return undefined // it is for other machines
      throw error
    }
  })
  if (found === undefined) return
  const said = saidLayers(found.manifest, layers.plan(found.manifest))
  const concerned = replacements.filter((each) => each.differs(namespace, found.chain, said))
  if (concerned.length === 0) return
  const pulled = await pulls.open(namespace, found.digest, name)
  // a registry that brings nothing keeps no other image from being looked at
  for (const each of concerned) void each.replace(namespace, pulled, found.chain) // never rejects
}

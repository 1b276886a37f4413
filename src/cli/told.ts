// Whether the engines of this machine tell the agent of an image before they look for its layers. Images that are only believed are kept
// apart (serve --diffid guarded) as far as that holds.
import { basename } from 'node:path'
import { readCrioConf } from '../engines/crio-conf.ts'
import { HELPER } from '../engines/helper-here.ts'
import { type EnginesHere, findEngines } from '../engines/here.ts'
import { machineFiles, realPath } from '../engines/machine.ts'
import { namedHelper } from '../engines/named-helper.ts'
import { crioStorageConfs, readStorageConf, storageConfsOf } from '../engines/storage-conf.ts'
import { callsHelper, type Engine, type FoundEngine } from '../engines/versions.ts'
import { Failure } from '../errors.ts'
import type { Places } from '../registry/places.ts'
import { crioNames } from './doctor/crio.ts'
import { namedOf } from './doctor/storage.ts'

/** Which of our stores an engine's configuration names. */
export interface NamedStores {
  layers: boolean
  images: boolean
}

/**
 * Why an engine may look for layers of an image that the agent was not told of, a clause; undefined: it does not, or it looks into none of
 * our stores. The layer store is asked by a reference, which tells of the image; the image store is only read.
 * @param helper what registries.conf names as auth helper
 */
export function whyUntold(
  { engine, version, era }: FoundEngine,
  { layers, images }: NamedStores,
  helper: string | undefined,
): string | undefined {
  if (!layers && !images) return undefined
  const name = `${engine} ${version.text}`
  if (callsHelper(engine, version)) {
    if (helper !== undefined && basename(helper) === HELPER) return undefined
    return `${name} runs the auth helper that registries.conf names, which is ${helper ?? 'none'}`
  }
  if (era === 'layer') return layers ? undefined : `${name} runs no auth helper, and reads the image store alone`
  return `${name} runs no auth helper, and asks the layer store for what has an index alone`
}

/** Why not, of each engine here that looks into the stores of `root`. @throws Failure usage, system: its settings cannot be read */
export async function untoldHere(root: string, places: Places, { found, silent }: EnginesHere): Promise<string[]> {
  const real = await realPath(root)
  // engines may know it by the name that serve says, which has no symlinks
  const roots = real === root ? [root] : [root, real]
  const shared = await readStorageConf(storageConfsOf(places), machineFiles)
  const crio = await readCrioConf(places.etc, machineFiles)
  const inCrio = await Promise.all(
    roots.map((each) => crioNames(crio, each, crioStorageConfs(places.etc), machineFiles)),
  )
  const inStorage = roots.map((each) => (shared === undefined ? NONE : namedOf(shared.parsed, each)))
  const namedBy = (engine: Engine): NamedStores => {
    const named = engine === 'crio' ? inCrio : inStorage
    return { layers: named.some(({ layers }) => layers), images: named.some(({ images }) => images) }
  }
  const helper = await namedHelper(places, machineFiles)
  const mute = silent.flatMap(({ engine, why }) => {
    const { layers, images } = namedBy(engine)
    return layers || images ? [`${engine} does not say its version (${why})`] : []
  })
  return [...found.flatMap((each) => whyUntold(each, namedBy(each.engine), helper) ?? []), ...mute]
}

const NONE: NamedStores = { layers: false, images: false }

/** @throws Failure unsupported: an engine here does not tell; as `untoldHere` */
export async function refuseUntold(root: string, places: Places): Promise<void> {
  const untold = await untoldHere(root, places, await findEngines())
  if (untold.length === 0) return
  throw Failure.unsupported('--diffid guarded cannot keep images apart that the agent is not told of', {
    why: untold.join('; '),
    fix: 'Run lazylayer setup podman (or crio), which names the auth helper, or up to Podman 5.0 the layer store; of Podman 5.1 use another version. Or serve --diffid proven (docs/security.md).',
  })
}

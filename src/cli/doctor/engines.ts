// Checks of the engines: a line each for those that are there, with the upstream bugs that hit this version.

import type { SilentEngine } from '../../engines/here.ts'
import { callsHelper, ENGINES, type Engine, type FoundEngine } from '../../engines/versions.ts'
import { type Check, type Finding, ok, problem, warning } from './check.ts'

export interface EngineNeeds {
  engines: readonly FoundEngine[]
  /** Installed, but of no known version. */
  silent: readonly SilentEngine[]
  /** Which of our stores an engine's configuration names. */
  names: (engine: Engine) => Named
  /** Whether setup would name the layer store: an engine that reads the same file needs it. */
  layersOfUse: boolean
}

interface Named {
  layers: boolean
  images: boolean
}

export const engines: readonly Check<EngineNeeds>[] = ENGINES.map((engine) => ({
  name: engine,
  async run({ engines, silent, names, layersOfUse }) {
    const mute = silent.find((each) => each.engine === engine)
    if (mute !== undefined) {
      const found = `it is installed, but does not say its version: ${mute.why}`
      return problem(found, `Repair it: until ${engine} --version works, nobody knows which store it can use.`)
    }
    const found = engines.find((each) => each.engine === engine)
    if (found === undefined) return ok('not installed')
    return adviceFor(found, names(engine), layersOfUse)
  },
}))

/** What to know of an engine of this version. @param layersOfUse whether another engine on the machine needs the layer store */
export function adviceFor({ engine, version, era }: FoundEngine, names: Named, layersOfUse: boolean): Finding {
  const found = version.text
  switch (era) {
    case 'image':
      if (names.layers) {
        return problem(
          `${found} loses layers that it finds in an additional layer store (docs/upstream-layer-store.md), and its configuration names one`,
          `Use the additional image store: ${setup(engine)}.`,
        )
      }
      return ok(
        `${found}: uses the additional image store; the layer store is broken in it (docs/upstream-layer-store.md)`,
      )
    case 'index':
      if (names.layers && !layersOfUse) {
        return warning(
          `${found} asks the layer store, which its configuration names, before the image store: images that have the same lazy layers and different configurations get one ID (docs/upstream-image-ids.md)`,
          `Use the image store alone: ${setup(engine)}, with lazylayer-auth-helper installed.`,
        )
      }
      return ok(`${found}: asks by the digest of a layer's index${withoutHelper(engine, version)}`)
    case 'layer':
      return warning(
        `${found} knows layers by DiffID only: it pulls those whose DiffIDs are neither proven nor believed`,
        names.layers
          ? 'Run lazylayer pull --prove IMAGE before it pulls one, or use a newer version (docs/podman.md has other ways).'
          : 'Run lazylayer pull --prove IMAGE before it pulls one, or lazylayer pull IMAGE where serve --diffid believes it: its configuration names no layer store, where it would look by itself.',
      )
  }
}

function withoutHelper(engine: Engine, version: FoundEngine['version']): string {
  return callsHelper(engine, version) ? '' : '; runs no auth helper, so credentials come from auth.json'
}

function setup(engine: Engine): string {
  return `run lazylayer setup ${engine === 'crio' ? 'crio' : 'podman'}`
}

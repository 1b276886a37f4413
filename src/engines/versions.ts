// What each engine does with a store, by its version. The versions are those in which an engine took up a version of the library that
// they all share, containers/storage: 1.54 asks an additional layer store by index, 1.58 loses what it finds there.

export const ENGINES = ['podman', 'crio', 'buildah', 'skopeo'] as const
export type Engine = (typeof ENGINES)[number]

export interface Version {
  major: number
  minor: number
  text: string
}

/**
 * layer   asks the additional layer store by the layer's digest and takes the DiffID from it
 * index   asks it by the digest of the layer's index
 * image   loses what it finds there; the additional image store works
 */
export const ERAS = ['layer', 'index', 'image'] as const
export type Era = (typeof ERAS)[number]

/** First versions, as [major, minor]: of each era, and of the auth helper in registries.conf. */
const SINCE: Readonly<Record<Engine, { index: Pair; image: Pair; helper: Pair }>> = {
  podman: { index: [5, 1], image: [5, 5], helper: [5, 2] },
  crio: { index: [1, 31], image: [1, 33], helper: [1, 31] },
  buildah: { index: [1, 36], image: [1, 40], helper: [1, 37] },
  skopeo: { index: [1, 16], image: [1, 19], helper: [1, 16] },
}

type Pair = readonly [number, number]

/** The era an engine of this version belongs to. */
export function eraOf(engine: Engine, version: Version): Era {
  const { index, image } = SINCE[engine]
  if (isSince(version, image)) return 'image'
  return isSince(version, index) ? 'index' : 'layer'
}

/** Whether it runs the auth helper of registries.conf, which tells the agent of an image before its layers are looked up. */
export function callsHelper(engine: Engine, version: Version): boolean {
  return isSince(version, SINCE[engine].helper)
}

function isSince({ major, minor }: Version, [ofMajor, ofMinor]: Pair): boolean {
  return major > ofMajor || (major === ofMajor && minor >= ofMinor)
}

/**
 * The first version number in what `ENGINE --version` prints: `podman version 5.4.2`, `buildah version 1.39.3 (image-spec …)`,
 * `containerd github.com/containerd/containerd/v2 v2.1.4 …`.
 */
export function parseVersion(printed: string): Version | undefined {
  const found = /(?<![\w.])v?((\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?[^\s,]*)/.exec(printed)
  if (found === null) return undefined
  const [, text = '', major, minor] = found
  return { major: Number(major), minor: Number(minor), text }
}

/** An engine of this machine. */
export interface FoundEngine {
  engine: Engine
  version: Version
  era: Era
}

/** @param printed what its `--version` says */
export function foundEngine(engine: Engine, printed: string): FoundEngine | undefined {
  const version = parseVersion(printed)
  return version === undefined ? undefined : { engine, version, era: eraOf(engine, version) }
}

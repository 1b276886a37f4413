// The mounts that make a snapshot's directory: one bind where there is one directory, else an overlay. Pure.
import { Failure } from '../errors.ts'

export interface Mount {
  type: string
  source: string
  options: readonly string[]
}

/** What a snapshot is made of. */
export interface Stack {
  /** Directories below, the topmost first; without one that comes twice. */
  lower: readonly string[]
  /** Where it is written; undefined: nowhere. */
  own: { upper: string; work: string } | undefined
  /** Options that this machine's overlays need. */
  overlay: readonly string[]
  /** `uidmap=…`, `gidmap=…`: of a container in a user namespace. */
  mapped: readonly string[]
}

/** @throws Failure unsupported: it has no directory at all */
export function mountsOf({ lower, own, overlay, mapped }: Stack): Mount[] {
  const [only, ...more] = lower
  if (own === undefined) {
    if (only === undefined) throw Failure.unsupported('a view of nothing')
    if (more.length === 0) return [{ type: 'bind', source: only, options: ['ro', 'rbind', ...mapped] }]
    const options = [`lowerdir=${lower.join(':')}`, ...overlay, ...mapped]
    return [{ type: 'overlay', source: 'overlay', options }]
  }
  if (only === undefined) return [{ type: 'bind', source: own.upper, options: ['rw', 'rbind', ...mapped] }]
  const options = [`workdir=${own.work}`, `upperdir=${own.upper}`, `lowerdir=${lower.join(':')}`, ...overlay, ...mapped]
  return [{ type: 'overlay', source: 'overlay', options }]
}

/** The same of a layer that is there already: whoever was to fill it sees by the last mount's `ro` that there is nothing to do. */
export function readyMounts(lower: readonly string[]): Mount[] {
  return mountsOf({ lower, own: undefined, overlay: [], mapped: [] }).map((each) => ({
    ...each,
    options: [...each.options.filter((option) => option !== 'ro'), 'ro'],
  }))
}

/** Overlays refuse a directory that comes twice. Of a layer that is there twice the upper one shows all that the lower one could. */
export function withoutRepeats(lower: readonly string[]): string[] {
  return [...new Set(lower)]
}

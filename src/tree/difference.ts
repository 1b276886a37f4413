// What tells a served tree from its tar's.

export interface Difference {
  /** A sentence that names the path. */
  what: string
  /** Whether an honest layer may differ so: then nothing is proven, in either direction. */
  open: boolean
}

export function different(what: string): Difference {
  return { what, open: false }
}

/** @param of the path, or paths, quoted */
export function incomparable(of: string, why: string): Difference {
  return { what: `${of}: cannot be compared: ${why}`, open: true }
}

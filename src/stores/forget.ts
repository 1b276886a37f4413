// Forgets what was listed and nobody uses any more, so that the next process does not list it. Done when a process ends and nothing is
// shown any more: until then an engine may take into use whatever is listed, and keeps nothing of a layer but its name.
import type { ListedImage } from './image-chain.ts'

export interface ForgetParts {
  /** Those of these layers that engines refer to, with all below them; undefined when that cannot be known. */
  inUse(listed: readonly { id: string; parent: string | undefined }[]): Promise<Set<string> | undefined>
  /** Resolves when it is durable. */
  forget(image: ListedImage): Promise<void>
}

/** An image that was listed, its layers from the base up. */
export interface Listed {
  image: ListedImage
  ids: readonly string[]
  /** When it was last asked for: milliseconds since 1970; 0: in an earlier life. */
  at: number
}

/** A pull, a pod that waits for its volumes: what was asked for within a day is somebody's, and may be in no root yet. */
const RECENT_MS = 24 * 3_600_000

/** @returns how many were forgotten. @throws what `inUse` and `forget` throw */
export async function forgetUnused(
  listed: Iterable<Listed>,
  { inUse, forget }: ForgetParts,
  now: number,
): Promise<number> {
  const all = [...listed]
  const layers = new Map<string, string | undefined>()
  for (const { ids } of all) for (const [i, id] of ids.entries()) layers.set(id, ids[i - 1])
  const used = await inUse([...layers].map(([id, parent]) => ({ id, parent })))
  if (used === undefined) return 0
  // of an image without listed layers nobody knows whether it is used
  const unused = all.filter(({ ids, at }) => ids.length > 0 && now - at >= RECENT_MS && !ids.some((id) => used.has(id)))
  for (const { image } of unused) await forget(image)
  return unused.length
}

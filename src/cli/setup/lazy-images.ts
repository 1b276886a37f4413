// Whether engines of this machine have images whose layers are in our stores: without the stores these have none.

import { readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Files } from '../../engines/machine.ts'
import { within } from '../../engines/machine.ts'
import { inUse, type ListedLayer, referenced } from '../../stores/engine-roots.ts'
import type { EngineRoot } from '../../stores/read-roots.ts'

/** Of the stores of `root`, in these storage roots; also where that cannot be found out. */
export async function hasLazyImages(
  root: string,
  roots: readonly EngineRoot[],
  files: Pick<Files, 'read'>,
): Promise<boolean> {
  try {
    return (await throughLayers(root, roots)) || (await throughImages(root, roots, files))
  } catch {
    return true
  }
}

/** A layer of the layer store is a link to its files there. */
async function throughLayers(root: string, roots: readonly EngineRoot[]): Promise<boolean> {
  for (const { dir } of roots) {
    const overlay = join(dir, 'overlay')
    for (const id of await within(readdir(overlay), overlay).catch(() => [])) {
      const target = await readlink(join(overlay, id, 'diff')).catch(() => '') // usually a directory
      if (target.startsWith(`${root}/`)) return true
    }
  }
  return false
}

/** @throws Failure what cannot be read */
async function throughImages(root: string, roots: readonly EngineRoot[], files: Pick<Files, 'read'>): Promise<boolean> {
  const text = await files.read(join(root, 'images/overlay-layers/layers.json'))
  const listed = JSON.parse(text ?? '[]') as ListedLayer[] // our own
  // without an agent nothing is listed, whatever was
  if (listed.length === 0) return (await files.read('/proc/self/mountinfo'))?.includes(` ${root} `) !== true
  const references = await referenced(roots, () => {})
  return references === undefined || inUse(listed, references).size > 0
}

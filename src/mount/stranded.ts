// Overlays whose layers are of a mount that is gone: it was ended, or its connection died, while containers ran on it. They hold copies of
// what was mounted, so nothing that is mounted there later reaches them, and each must be made anew.
//
// The kernel does not say which filesystem an overlay is made of, only by which names it was made. But a mount table is in the order in which
// things were mounted: what is older than the mount that stands there now is of an earlier one.
import { tablesHere } from './mount-namespaces.ts'
import { type MountEntry, mountTable } from './mount-table.ts'
import { follow, isWithin, lowerDirs } from './overlays.ts'

/** A directory that layers are seen in, or were. */
export interface LayersRoot {
  /** As the mount table names it. */
  dir: string
  /** Whether something is mounted there that answers. */
  isAlive: boolean
}

export interface Stranded {
  /** Whose layers it is made of. */
  root: LayersRoot
  /** Where it is mounted, seen from any mount namespace. */
  points: readonly string[]
  /** The first process whose root directory it is. */
  pid: number | undefined
}

interface Overlay {
  readonly entry: MountEntry
  readonly points: Set<string>
  readonly tables: (readonly MountEntry[])[]
  pid: number | undefined
}

/**
 * As far as processes and their mount tables are seen from here.
 * @param tables mountinfo of processes, as `tablesHere` names them
 */
export async function strandedOverlays(roots: readonly LayersRoot[], tables?: readonly string[]): Promise<Stranded[]> {
  const overlays = new Map<string, Overlay>()
  for (const file of tables ?? (await tablesHere())) {
    const table = await mountTable(file).catch(() => []) // the process has ended, or is not ours to look at
    for (const entry of table) {
      if (entry.type !== 'overlay') continue
      const found = overlays.get(entry.device) ?? { entry, points: new Set(), tables: [], pid: undefined }
      overlays.set(entry.device, found)
      found.points.add(entry.point)
      if (found.tables.at(-1) !== table) found.tables.push(table)
      if (entry.point === '/') found.pid ??= pidOf(file)
    }
  }
  const dirs = roots.map(({ dir }) => dir)
  const stranded: Stranded[] = []
  for (const { entry, points, tables: seenIn, pid } of overlays.values()) {
    // a container has it as its root directory, from where relative names lead nowhere
    const named = [...points].flatMap((point) => lowerDirs({ ...entry, point }))
    const lower = await Promise.all([...new Set(named)].map((each) => follow(each, dirs)))
    const root = roots.find(
      ({ dir, isAlive }) =>
        lower.some((each) => each !== undefined && isWithin(each, dir)) &&
        (!isAlive || isOlder(entry.device, dir, seenIn)),
    )
    if (root !== undefined) stranded.push({ root, points: [...points], pid })
  }
  return stranded
}

/** Whether an overlay was there before what is mounted on `dir`, by the first table that has both. */
function isOlder(device: string, dir: string, tables: readonly (readonly MountEntry[])[]): boolean {
  for (const table of tables) {
    const mount = table.findLastIndex(({ point }) => point === dir)
    if (mount >= 0) return table.findIndex((each) => each.device === device) < mount
  }
  return false
}

/** Undefined: of this process. */
function pidOf(table: string): number | undefined {
  const [, pid] = /^\/proc\/(\d+)\//.exec(table) ?? []
  return pid === undefined ? undefined : Number(pid)
}

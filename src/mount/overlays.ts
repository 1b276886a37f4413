// Which directories are lower layers of overlays right now, by the mount table. The kernel does not tell from the other end: a mount can
// be unmounted while overlays use it, because they hold a copy of it.
import { readlink } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { tablesHere } from './mount-namespaces.ts'
import { type MountEntry, mountTable, OWN_TABLE } from './mount-table.ts'

/** containers/storage: `l/LINK` -> `../ID/diff` -> the layer of an additional store. */
const LINKS_MAX = 2

/**
 * The lower directories below `root` of all overlays in this mount namespace and in those of all processes that are seen from here.
 * Nothing below `root` is touched.
 * @param tables mountinfo of other processes
 */
export async function lowerDirsBelow(root: string, tables?: readonly string[]): Promise<Set<string>> {
  const overlays = new Map<string, MountEntry>()
  for (const table of tables ?? (await tablesHere())) {
    const entries = await mountTable(table).catch((error) => {
      if (table === OWN_TABLE) throw error
      return [] // the process has ended, or is not ours to look at
    })
    for (const each of entries) if (each.type === 'overlay') overlays.set(`${each.device} ${each.point}`, each)
  }
  const named = new Set([...overlays.values()].flatMap(lowerDirs))
  const found = await Promise.all([...named].map((each) => follow(each, [root])))
  return new Set(found.filter((each) => each !== undefined && each !== root) as string[])
}

/** `lowerdir=A:B`, where a colon of a name is behind a backslash, or `lowerdir+=A` for each. */
export function lowerDirs({ options, point }: Pick<MountEntry, 'options' | 'point'>): string[] {
  const named = options.flatMap((each) => {
    if (each.startsWith('lowerdir+=')) return [each.slice('lowerdir+='.length)]
    if (!each.startsWith('lowerdir=')) return []
    const names = each.slice('lowerdir='.length).match(/(?:\\.|[^:\\])+/g) ?? []
    return names.map((name) => name.replace(/\\(.)/g, '$1'))
  })
  // where absolute ones are too long, they are relative to the directory of all layers: the mount is on its <id>/merged
  return named.map((each) => resolve(dirname(dirname(point)), each))
}

/** Where a lower directory is, at or below one of these; undefined: elsewhere. Nothing below them is touched. */
export async function follow(path: string, roots: readonly string[]): Promise<string | undefined> {
  let at = path
  for (let links = 0; at.startsWith('/'); links++) {
    if (roots.some((each) => isWithin(at, each))) return at
    if (links === LINKS_MAX) return undefined
    const target = await readlink(at).catch(() => undefined) // no link, or gone
    if (target === undefined) return undefined
    at = resolve(dirname(at), target)
  }
  return undefined
}

/** Whether it is this directory, or below it. */
export function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`)
}

// Which directories are lower layers of overlays right now, by the mount table. The kernel does not tell from the other end: a mount can
// be unmounted while overlays use it, because they hold a copy of it.
import { readlink } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { mountTable } from './mount-table.ts'

/** containers/storage: `l/LINK` -> `../ID/diff` -> the layer of an additional store. */
const LINKS_MAX = 2

/**
 * The lower directories below `root` of all overlays in this mount namespace; those that engines name relative to a directory of theirs
 * are not found. Nothing below `root` is touched.
 * @param table mountinfo of another process
 */
export async function lowerDirsBelow(root: string, table?: string): Promise<Set<string>> {
  const named = new Set((await mountTable(table)).filter((each) => each.type === 'overlay').flatMap(lowerDirs))
  const found = await Promise.all([...named].map((each) => follow(each, root)))
  return new Set(found.filter((each) => each !== undefined))
}

/** `lowerdir=A:B`, where a colon of a name is behind a backslash, or `lowerdir+=A` for each. */
function lowerDirs({ options }: { options: readonly string[] }): string[] {
  return options.flatMap((each) => {
    if (each.startsWith('lowerdir+=')) return [each.slice('lowerdir+='.length)]
    if (!each.startsWith('lowerdir=')) return []
    const names = each.slice('lowerdir='.length).match(/(?:\\.|[^:\\])+/g) ?? []
    return names.map((name) => name.replace(/\\(.)/g, '$1'))
  })
}

async function follow(path: string, root: string): Promise<string | undefined> {
  let at = path
  for (let links = 0; at.startsWith('/'); links++) {
    if (at.startsWith(`${root}/`)) return at
    if (links === LINKS_MAX) return undefined
    const target = await readlink(at).catch(() => undefined) // no link, or gone
    if (target === undefined) return undefined
    at = resolve(dirname(at), target)
  }
  return undefined
}

// Hard links of a layer, resolved: to earlier or later entries, through other links.
import { Failure } from '../errors.ts'
import { type Inode, isDirectory, NO_XATTRS } from './inode.ts'

interface HardLink {
  path: string
  /** What it links to: an inode (perhaps another link's stand-in) if that was there already, else a path to be looked up. */
  to: Inode | string
}

/**
 * A link is an inode of no type that stands in the tree until all entries are known. As in tar, a link to an earlier entry is a
 * link to what bore the name then, whoever bears it later.
 */
export class Links {
  readonly #links = new Map<Inode, HardLink>()

  /** @returns the stand-in */
  add(path: string, to: Inode | string): Inode {
    const standIn: Inode = { mode: 0, uid: 0, gid: 0, mtime: 0n, size: 0, xattrs: NO_XATTRS }
    this.#links.set(standIn, { path, to })
    return standIn
  }

  /**
   * Puts the real inodes in the place of the stand-ins that `find` still finds.
   * @throws Failure corrupt when links form a cycle, lead nowhere, or to a directory
   */
  resolve(find: (path: string) => Inode | undefined, replace: (path: string, by: Inode) => void): void {
    for (const [standIn, { path }] of this.#links) {
      if (find(path) !== standIn) continue
      replace(path, this.#follow(standIn, find))
    }
  }

  #follow(standIn: Inode, find: (path: string) => Inode | undefined): Inode {
    const passed = new Set<HardLink>()
    let at = standIn
    for (let link = this.#links.get(at); link; link = this.#links.get(at)) {
      if (passed.has(link)) throw Failure.corrupt(`${JSON.stringify(link.path)} is a hard link to itself`)
      passed.add(link)
      const to = typeof link.to === 'string' ? find(link.to) : link.to
      if (to === undefined) {
        throw Failure.corrupt(
          `${JSON.stringify(link.path)} is a hard link to ${JSON.stringify(link.to)}, which is not there`,
        )
      }
      at = to
    }
    if (isDirectory(at)) {
      const last = [...passed].at(-1)
      throw Failure.corrupt(`${JSON.stringify(last?.path)} is a hard link to a directory`)
    }
    // whoever comes along one of these links later has one step to go
    for (const link of passed) link.to = at
    return at
  }
}

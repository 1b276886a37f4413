// Files that nearly every start reads of an image, whatever runs in it, and that whoever optimized the image by watching its program has not
// seen: engines read them themselves. Each would cost a round trip, one after the other.
import type { File } from './entries.ts'
import { ZEROS } from './entry.ts'

/** Podman, CRI-O, containerd and runc look up users and groups there, before the program starts. */
const BY_ENGINES = /^etc\/(passwd|group)$/
/** Of programs that are linked dynamically; the loader's cache and the loader come before the program's own libraries. */
const BY_PROGRAMS =
  /^(etc\/ld\.so\.cache|(usr\/)?lib(64)?\/([^/]+\/)?(ld-linux[^/]*|ld-musl-[^/]*|libc(\.musl-[^/]*)?)\.so\.\d+)$/
/** Real ones are smaller: a loader has 0.2 MB, a libc 2 MB. */
const FILE_MAX_BYTES = 4 << 20

/**
 * Numbers of the chunks of such files, in the order of the index.
 * @param saysFirst whether the image itself says what is wanted first: then what programs read is among that
 */
export function usuallyRead(files: readonly File[], saysFirst: boolean): number[] {
  const isRead = ({ path, inode }: File) =>
    inode.size <= FILE_MAX_BYTES && (BY_ENGINES.test(path) || (!saysFirst && BY_PROGRAMS.test(path)))
  return files
    .filter(isRead)
    .flatMap(({ extents }) => extents.map(({ chunk }) => chunk).filter((each) => each !== ZEROS))
}

// What a source entry's header says.
import { Failure } from '../errors.ts'
import type { SourceEntry } from './source-entry.ts'
import type { TarHeader } from './tar.ts'

const DEFAULT_MODES: Readonly<Partial<Record<SourceEntry['type'], number>>> = { dir: 0o755, symlink: 0o777 }

/** The header of an entry with a clean path. @throws Failure usage */
export function headerOf(source: SourceEntry, size: number): TarHeader {
  const { path, type, target, rdev, xattrs } = source
  if ((type === 'symlink' || type === 'hardlink') === (target === undefined)) {
    throw Failure.usage(
      `entry ${JSON.stringify(path)}: a ${type} ${target === undefined ? 'needs a' : 'has no'} target`,
    )
  }
  return {
    path,
    type,
    mode: source.mode ?? DEFAULT_MODES[type] ?? 0o644,
    uid: source.uid ?? 0,
    gid: source.gid ?? 0,
    mtime: source.mtime ?? 0n,
    size: type === 'file' ? size : 0,
    ...(target === undefined ? {} : { target }),
    ...(rdev === undefined ? {} : { rdev }),
    ...(xattrs === undefined ? {} : { xattrs }),
  }
}

// The check of the cache's directory.

import { dirname } from 'node:path'
import type { Files, Seen } from '../../engines/machine.ts'
import { describe, Failure } from '../../errors.ts'
import { sizeText } from '../output.ts'
import { type Check, type Finding, ok, problem, together, warning } from './check.ts'

export interface CacheNeeds {
  cache: string
  uid: number
  files: Files
}

/** Below it, soon nothing can be kept; below the other, not for long. */
const FREE_PROBLEM_BYTES = 256 << 20
const FREE_WARNING_BYTES = 2 * 2 ** 30

/** statfs(2): f_type of filesystems that are no good as a cache, and why. */
const UNFIT: Readonly<Record<number, { type: string; state: 'warning' | 'problem'; why: string }>> = {
  16914836: {
    type: 'tmpfs',
    state: 'warning',
    why: 'it is lost with the next boot, and the kernel mounts no EROFS files of it',
  },
  2035054128: { type: 'overlayfs', state: 'warning', why: 'the kernel mounts no EROFS files of it' },
  26985: { type: 'NFS', state: 'problem', why: 'its locks and its sparse files are not those of a disk' },
  4283649346: { type: 'CIFS', state: 'problem', why: 'its locks and its sparse files are not those of a disk' },
  20859: { type: 'SMB', state: 'problem', why: 'its locks and its sparse files are not those of a disk' },
}

const ANOTHER = 'Repair it, or name another directory with --cache DIR.'
/** What cannot be asked for more. */
const SILENT: Partial<Record<Seen['kind'], string>> = {
  closed: 'is not open to this user',
  dead: 'is a mount whose server is gone',
  hung: 'does not answer',
}

export const cache: Check<CacheNeeds> = {
  name: 'cache',
  async run({ cache, uid, files }) {
    const { at, seen } = await nearest(cache, files)
    const silent = seen && SILENT[seen.kind]
    if (silent !== undefined) return problem(`${at} ${silent}`, ANOTHER)
    try {
      const { free, type } = await files.space(at)
      const room = `${cache}: ${sizeText(free)} free`
      const rightful = at === cache && seen !== undefined ? rights(cache, uid, seen) : []
      return together([...rightful, filesystem(cache, type), space(room, free)])
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return problem(describe(error), ANOTHER)
    }
  },
}

function rights(cache: string, uid: number, seen: Seen): Finding[] {
  if (seen.kind !== 'directory') return [problem(`${cache} is no directory`, 'Name another one with --cache DIR.')]
  if (seen.uid !== uid) {
    const fix = 'Run lazylayer as that user, or name another directory with --cache DIR.'
    return [problem(`${cache} belongs to user ${seen.uid}`, fix)]
  }
  if (!seen.writable)
    return [problem(`${cache} cannot be written`, 'Make its filesystem writable, or name another with --cache DIR.')]
  if ((seen.mode & 0o077) === 0) return []
  const mode = `0${(seen.mode & 0o777).toString(8)}`
  return [warning(`${cache} is open to other users (${mode})`, `Run chmod 700 ${cache}.`)]
}

function filesystem(cache: string, type: number): Finding {
  const unfit = UNFIT[type]
  if (unfit === undefined) return ok('on a disk filesystem')
  return {
    state: unfit.state,
    found: `${cache} is on ${unfit.type}: ${unfit.why}`,
    fix: 'Name a directory on a disk with --cache DIR.',
  }
}

function space(room: string, free: number): Finding {
  if (free < FREE_PROBLEM_BYTES)
    return problem(room, 'Make room: new layers cannot be opened, and what is read goes through memory.')
  return free < FREE_WARNING_BYTES ? warning(room, 'Make room: what is read of images is kept there.') : ok(room)
}

/** Itself, or where it would be made. */
async function nearest(cache: string, files: Files): Promise<{ at: string; seen: Seen | undefined }> {
  for (let at = cache; ; at = dirname(at)) {
    const seen = await files.look(at)
    if (at === dirname(at) || seen !== undefined) return { at, seen }
  }
}

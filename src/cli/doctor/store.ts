// The check of who may look into the store.

import { closedAbove, isClosed } from '../../agent/store-access.ts'
import type { Files } from '../../engines/machine.ts'
import { type Check, ok, problem, warning } from './check.ts'

export interface StoreNeeds {
  /** Without symlinks. */
  real: string
  uid: number
  files: Files
}

export const store: Check<StoreNeeds> = {
  name: 'store',
  async run({ real, uid, files }) {
    const seen = await files.look(real)
    if (seen?.kind !== 'directory') return ok(`${real} is not there, or not to be looked at`)
    if (seen.uid !== uid) {
      const fix = 'Run lazylayer as that user, or name another directory.'
      return problem(`${real} belongs to user ${seen.uid}, who can look into it`, fix)
    }
    const mode = async (dir: string) => (await files.look(dir))?.mode
    const closed = isClosed(seen.mode) ? real : await closedAbove(real, mode)
    if (closed !== undefined) return ok(`${real} is closed to other users${closed === real ? '' : ` by ${closed}`}`)
    return warning(
      `${real} is open to other users (0${seen.mode.toString(8)}): they read all images in it, private ones too, and have the agent ask registries`,
      'Start the agent again without --store-mode, unless every local user may read every image.',
    )
  },
}

// The check of images that are only believed: whether the agent hears of all pulls that it has to keep apart.
import type { Status } from '../../agent/socket.ts'
import { describe, Failure } from '../../errors.ts'
import { type DoctorCheck, ok, problem, warning } from './check.ts'

export interface ApartNeeds {
  root: string
  /** The same without symlinks, as agents have it. */
  real: string
  agents(): Promise<{ statuses: readonly Status[] }>
  /** Which engines do not tell the agent of what they pull, and why: clauses. @throws Failure: settings cannot be read */
  untold(): Promise<readonly string[]>
}

const FIX =
  'Run lazylayer setup podman (or crio), or serve --diffid proven (docs/security.md says what that means to images).'

export const apart: DoctorCheck<ApartNeeds> = {
  name: 'kept apart',
  async run({ root, real, agents, untold }) {
    const served = (await agents()).statuses.find((each) => each.root === real)
    if (served?.diffid?.policy !== 'guarded')
      return ok(`no agent of ${root} believes images until another says otherwise`)
    try {
      const found = await untold()
      if (found.length === 0) return ok('every engine that looks into the stores tells the agent of what it pulls')
      return problem(`--diffid guarded does not keep apart what the agent is not told of: ${found.join('; ')}`, FIX)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return warning(`whether the agent is told of all pulls is not known: ${describe(error)}`, FIX)
    }
  },
}

// Checks of registries.conf: that it can be read, and the auth helper it names.
import type { Files } from '../../engines/machine.ts'
import { namedHelper } from '../../engines/named-helper.ts'
import { callsHelper, type FoundEngine } from '../../engines/versions.ts'
import { describe } from '../../errors.ts'
import { readHostRules } from '../../registry/hosts.ts'
import type { Places } from '../../registry/places.ts'
import { type Check, ok, problem, warning } from './check.ts'

export interface RegistriesNeeds {
  places: Places
  engines: readonly FoundEngine[]
  files: Files
  /** Where our helper is, if it is installed. */
  helper: string | undefined
}

export const registries: Check<RegistriesNeeds> = {
  name: 'registries.conf',
  async run({ places }) {
    try {
      const rules = await readHostRules(places)
      const mirrors = rules.reduce((sum, each) => sum + each.mirrors.length, 0)
      return ok(`registries configured: ${rules.length}, mirrors: ${mirrors}`)
    } catch (error) {
      return problem(describe(error), 'Repair it: neither lazylayer nor an engine can read it.')
    }
  },
}

export const authHelper: Check<RegistriesNeeds> = {
  name: 'auth helper',
  async run({ places, engines, files, helper }) {
    const asking = engines.filter(({ engine, version }) => callsHelper(engine, version))
    if (asking.length === 0) return ok('no engine here runs one: credentials come from auth.json')
    let named: string | undefined
    try {
      named = await namedHelper(places, files)
    } catch (error) {
      return problem(describe(error), 'Repair it.')
    }
    if (named === undefined) {
      if (helper === undefined) return ok('not installed: credentials come from auth.json')
      return warning(
        'registries.conf names none: the agent knows no credentials that are given to an engine',
        'Run lazylayer setup podman (or crio).',
      )
    }
    const seen = await files.look(named)
    if (seen?.executable !== true) {
      const found = `registries.conf names ${named}, which ${seen === undefined ? 'is not there' : 'cannot be run'}`
      return problem(found, 'Run lazylayer setup podman (or crio) again.')
    }
    return ok(named)
  },
}

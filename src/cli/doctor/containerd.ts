// The check of containerd: whether it asks lazylayer, and whether what it was configured with lets layers be lazy.
import { parseVersion, type Version } from '../../engines/versions.ts'
import { describe, Failure } from '../../errors.ts'
import type { RunningContainerd, SnapshotterPlugin } from '../../snapshotter/plugins.ts'
import { mapsFuse, mapsLayers, REMAP_IDS, SNAPSHOTTER } from '../setup/containerd-config.ts'
import { type DoctorCheck, type Finding, ok, problem, together, warning } from './check.ts'

export interface ContainerdNeeds {
  /** Undefined: none runs here, or this user does not get to it. @throws Failure unavailable */
  containerd(): Promise<RunningContainerd | undefined>
  /** Its release, as uname(2) says it. */
  kernel: string
}

const SETUP = 'Run lazylayer setup containerd, and restart containerd.'

export const containerd: DoctorCheck<ContainerdNeeds> = {
  name: 'containerd',
  async run(needs) {
    try {
      const found = await needs.containerd()
      return found === undefined ? ok('none runs at its usual socket') : adviceFor(found, needs.kernel)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return warning(describe(error), 'Look whether it runs: systemctl status containerd.')
    }
  },
}

/** What to know of a containerd that runs. */
function adviceFor({ version: text, snapshotters }: RunningContainerd, kernel: string): Finding {
  const version = parseVersion(text)
  const plugin = snapshotters.find(({ id }) => id === SNAPSHOTTER)
  if (plugin === undefined) return ok(`${text}: its configuration names no snapshotter ${SNAPSHOTTER}`)
  const findings = version === undefined ? [] : lacks(plugin, version, kernel)
  return findings.length === 0 ? ok(`${text}: asks ${SNAPSHOTTER}`) : together(findings)
}

function lacks(
  { failed, capabilities, exports }: SnapshotterPlugin,
  { major, minor, text }: Version,
  kernel: string,
): Finding[] {
  const found: Finding[] = []
  if (failed !== undefined)
    found.push(
      problem(
        `${text} cannot use its snapshotter ${SNAPSHOTTER}: ${failed}`,
        'Start lazylayer serve --containerd first.',
      ),
    )
  if (capabilities.includes('rebase')) {
    const fix = "Take rebase out of the plugin's capabilities in config.toml."
    found.push(problem(`${text} loses layers below those that are there, because the plugin declares rebase`, fix))
  }
  const isMapping = capabilities.includes(REMAP_IDS)
  if (mapsLayers({ major }) && mapsFuse(kernel) && !isMapping)
    found.push(warning(`${text} copies the whole image for each container in a user namespace`, SETUP))
  if (isMapping && !mapsFuse(kernel)) {
    const fix = `Take ${REMAP_IDS} out of the plugin's capabilities in config.toml, or use Linux 6.12 or later.`
    const why = `because the plugin declares ${REMAP_IDS}, and Linux ${kernel} maps no users of FUSE mounts`
    found.push(problem(`${text} starts no container in a user namespace, ${why}`, fix))
  }
  if ((major > 2 || (major === 2 && minor >= 1)) && exports.enable_remote_snapshot_annotations !== 'true')
    found.push(
      warning(
        `${text} does not say which image a layer is of, so registries at ports of their own are not lazy`,
        SETUP,
      ),
    )
  if (exports.root === undefined)
    found.push(
      warning(`${text} does not know where layers lie, so kubelet watches a directory that is not there`, SETUP),
    )
  return found
}

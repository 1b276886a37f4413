// Which files `setup k3s` changes, of k3s and of RKE2. Both write containerd's configuration anew at each start, from a template that may be
// extended, and choose CRI's snapshotter by their own settings:
//
//   /etc/rancher/NAME/config.yaml.d/50-lazylayer.yaml            snapshotter: lazylayer
//   /var/lib/rancher/NAME/agent/etc/containerd/config*.tmpl      their own configuration, and the snapshotter
import { join } from 'node:path'
import { parseVersion } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import type { Places } from '../../registry/places.ts'
import { MADE } from './changes.ts'
import { type MachineWishes, wishesOf } from './containerd.ts'
import { configVersion, SNAPSHOTTER, withPlugin } from './containerd-config.ts'
import type { Change, SetupPlan } from './plan.ts'
import { BEHIND_AGENT, unitChange } from './settings-change.ts'

export interface K3sSetup {
  places: Pick<Places, 'etc' | 'uid'>
  /** Where they keep what is theirs: /var/lib/rancher. */
  rancher: string
  wishes: MachineWishes
  /** What the containerd of a distribution prints of its version; undefined: it cannot be asked. */
  printed(program: string): Promise<string | undefined>
}

interface Distribution {
  name: string
  units: readonly string[]
}

const DISTRIBUTIONS: readonly Distribution[] = [
  { name: 'k3s', units: ['k3s', 'k3s-agent'] },
  { name: 'rke2', units: ['rke2-server', 'rke2-agent'] },
]
/** Their containerd's socket: both say k3s. */
const ADDRESS = '/run/k3s/containerd/containerd.sock'
const BASE = '{{ template "base" . }}\n'
const END = '# Behind this lazylayer setup has made nothing.\n'
const SETTINGS = `${MADE}\nsnapshotter: ${SNAPSHOTTER}\n`

/** @throws Failure missing: neither is here; unsupported: not root's */
export async function planK3s(setup: K3sSetup): Promise<SetupPlan> {
  const found = await distributionsIn(setup)
  const changes: Change[] = []
  const notes = [
    `have the agent serve it: lazylayer serve --containerd ${setup.wishes.socket} --containerd-address ${ADDRESS}`,
  ]
  for (const { name, units } of found) {
    const { folder, settings } = pathsOf(name, setup)
    const template = join(folder, (await versionIn(folder)) === 2 ? 'config.toml.tmpl' : 'config-v3.toml.tmpl')
    const before = await readText(template)
    const program = join(setup.rancher, name, 'data/current/bin/containerd')
    const version = parseVersion((await setup.printed(program)) ?? '')
    // from 2.1 on containerd pulls nothing without unpack_config, whatever version its configuration is of
    const isOld = version === undefined ? (await versionIn(folder)) === 2 : version.major < 2
    const empty = `version = ${isOld ? 2 : 3}\n`
    const added = withPlugin(empty, SNAPSHOTTER, wishesOf(setup.wishes, version)).slice(empty.length)
    changes.push(
      { path: template, before, after: `${withoutOurs(before) ?? BASE}${MADE}\n${added}${END}` },
      { path: settings, before: await readText(settings), after: SETTINGS },
    )
    for (const unit of await unitsHere(units, setup)) {
      changes.push(await unitChange(setup.places, unit, BEHIND_AGENT))
      notes.push(`run systemctl daemon-reload && systemctl restart ${unit}`)
    }
    notes.push(
      'registries at ports of their own are lazy where kubelet pulls past the agent (--cri-proxy): docs/containerd.md, k3s',
      `mirrors that registries.yaml has are not the agent's: ${join(folder, 'certs.d')} is what containerd reads of them, ${join(setup.places.etc, 'containerd/certs.d')} what the agent does`,
    )
  }
  const needed = changes.filter((each) => each.before !== each.after)
  return { changes: needed, notes: needed.length === 0 ? [] : notes }
}

/** @throws Failure as planK3s */
export async function planK3sUndo(setup: K3sSetup): Promise<SetupPlan> {
  const changes: Change[] = []
  for (const { name, units } of await distributionsIn(setup)) {
    const { folder, settings } = pathsOf(name, setup)
    for (const each of ['config.toml.tmpl', 'config-v3.toml.tmpl']) {
      const path = join(folder, each)
      const before = await readText(path)
      const left = withoutOurs(before)
      changes.push({ path, before, after: left === BASE ? undefined : left })
    }
    changes.push({ path: settings, before: await readText(settings), after: undefined })
    for (const unit of units) changes.push(await unitChange(setup.places, unit, undefined))
  }
  const needed = changes.filter((each) => each.before !== each.after)
  return { changes: needed, notes: needed.length === 0 ? [] : ['restart k3s or RKE2, as it is called here'] }
}

/** A template without what setup has added. */
function withoutOurs(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  const [start, end] = [text.indexOf(`${MADE}\n`), text.indexOf(END)]
  return start < 0 || end < start ? text : text.slice(0, start) + text.slice(end + END.length)
}

/** Of the configuration that was written at the last start; undefined: there was none. */
async function versionIn(folder: string): Promise<number | undefined> {
  const text = await readText(join(folder, 'config.toml'))
  return text === undefined ? undefined : configVersion(text)
}

function pathsOf(name: string, { places, rancher }: K3sSetup): { folder: string; settings: string } {
  return {
    folder: join(rancher, name, 'agent/etc/containerd'),
    settings: join(places.etc, `rancher/${name}/config.yaml.d/50-lazylayer.yaml`),
  }
}

async function distributionsIn(setup: K3sSetup): Promise<Distribution[]> {
  if (setup.places.uid !== 0)
    throw Failure.unsupported('the configuration of k3s is root’s', { fix: 'Run it as root.' })
  const found: Distribution[] = []
  for (const each of DISTRIBUTIONS) if ((await unitsHere(each.units, setup)).length > 0) found.push(each)
  if (found.length > 0) return found
  throw Failure.missing('neither k3s nor RKE2 is installed here', {
    why: `no unit of theirs is in ${join(setup.places.etc, 'systemd/system')} or /usr/local/lib/systemd/system`,
    fix: 'Install it first; for one that is started by hand docs/containerd.md shows the files.',
  })
}

async function unitsHere(units: readonly string[], { places }: K3sSetup): Promise<string[]> {
  const folders = [join(places.etc, 'systemd/system'), '/usr/local/lib/systemd/system']
  const here: string[] = []
  for (const unit of units) {
    const texts = await Promise.all(folders.map((folder) => readText(join(folder, `${unit}.service`))))
    if (texts.some((text) => text !== undefined)) here.push(unit)
  }
  return here
}

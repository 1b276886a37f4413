// What setup must know of CRI-O: whether it is here, what it reads, and whether it would wipe its storage for a store (docs/crio.md).
import { basename, dirname, join } from 'node:path'
import { type CrioConf, isCrioHere, readCrioConf, storesNamed } from '../../engines/crio-conf.ts'
import { machineFiles, realPath } from '../../engines/machine.ts'
import { parseText } from '../../engines/toml-edit.ts'
import type { Engine } from '../../engines/versions.ts'
import { describe, Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import type { Places } from '../../registry/places.ts'
import { storesIn } from '../doctor/storage.ts'
import { CRIO_CONF, DROP_IN } from './changes.ts'

/** CRI-O runs as root, with the environment of its unit. */
function crioStorageConf(places: Places): string {
  return join(places.etc, 'containers/storage.conf')
}

export function crioUnit(places: Places): string {
  return join(places.etc, 'systemd/system/crio.service.d', DROP_IN)
}

export function crioConf(places: Places): string {
  return join(places.etc, 'crio/crio.conf.d', DROP_IN)
}

/** Where systemd looks for units that come with packages. */
const UNITS = ['/usr/local/lib/systemd/system', '/usr/lib/systemd/system', '/lib/systemd/system', '/run/systemd/system']

/** Whether there is a unit of the agent. */
export async function hasUnit(places: Places): Promise<boolean> {
  const folders = [join(places.etc, 'systemd/system'), ...UNITS]
  const seen = await Promise.all(folders.map((folder) => machineFiles.look(join(folder, 'lazylayer.service'))))
  return seen.some((each) => each !== undefined)
}

/** Whether a CRI-O that is here, or was configured before it is installed or found in PATH, reads the storage.conf at `path`. */
export async function crioReads(
  path: string,
  places: Places,
  engines: readonly { engine: Engine }[],
): Promise<boolean> {
  const isHere = await isCrioHere(places.etc, engines, machineFiles)
  return isHere && places.uid === 0 && (await isSame(path, crioStorageConf(places)))
}

/** Those of the engines that read the storage.conf at `path`: CRI-O reads none but the system's. */
export async function readersOf<E extends { engine: Engine }>(
  path: string,
  places: Places,
  engines: readonly E[],
): Promise<readonly E[]> {
  const isCrios = places.uid === 0 && (await isSame(path, crioStorageConf(places)))
  return isCrios ? engines : engines.filter(({ engine }) => engine !== 'crio')
}

/** The file itself may be absent, or a symlink. */
async function isSame(one: string, other: string): Promise<boolean> {
  const real = async (path: string) => await realPath(join(await realPath(dirname(path)), basename(path)))
  return one === other || (await real(one)) === (await real(other))
}

/** Why CRI-O still repairs with our drop-in, a sentence; undefined: it does not. */
export async function whyRepairs(places: Places): Promise<string | undefined> {
  const own = crioConf(places)
  const files = {
    look: machineFiles.look,
    read: async (path: string) => (path === own ? CRIO_CONF : await machineFiles.read(path)),
    async list(dir: string) {
      const names = await machineFiles.list(dir)
      return dir === dirname(own) ? [...new Set([...names, DROP_IN])].sort() : names
    },
  }
  const conf = await orWhy(readCrioConf(places.etc, files))
  if (typeof conf === 'string') return `${conf}, so whether CRI-O would wipe its storage is not known`
  if (conf?.repair === false) return undefined
  return `a file in ${dirname(own)} that CRI-O reads after ${DROP_IN} turns internal_repair on again: take that out, or CRI-O wipes its storage after a crash (docs/crio.md)`
}

/**
 * Why CRI-O must not repair, a clause: it knows an additional image store, anybody's; undefined: it knows none.
 * @param change of a storage.conf, which is still to be made
 */
export async function whyNoRepair(
  places: Places,
  vendor: string,
  change: { path: string; after: string | undefined } | undefined,
): Promise<string | undefined> {
  const path = crioStorageConf(places)
  const isChanged = change !== undefined && (await isSame(change.path, path))
  const shared = await orWhy(firstStore([path, vendor], isChanged ? { [path]: change.after } : {}))
  if (shared !== undefined) return shared
  const conf = await orWhy(readCrioConf(places.etc, machineFiles))
  if (typeof conf === 'string') return conf
  const [own] = storesNamed(conf?.options ?? []).images
  return own === undefined ? undefined : `${(conf as CrioConf).paths.join(', ')} still names ${own}` // it has options
}

/** The first file that is there is the one that counts. */
async function firstStore(
  paths: readonly string[],
  texts: Readonly<Record<string, string | undefined>>,
): Promise<string | undefined> {
  for (const path of paths) {
    const text = path in texts ? texts[path] : await readText(path)
    if (text === undefined) continue
    try {
      const [store] = storesIn(parseText(text)).images
      return store === undefined ? undefined : `${path} still names ${store}`
    } catch (cause) {
      throw Failure.usage(`${path} cannot be read`, { cause })
    }
  }
  return undefined
}

async function orWhy<T>(asked: Promise<T>): Promise<T | string> {
  try {
    return await asked
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return describe(error)
  }
}

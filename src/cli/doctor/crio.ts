// The check of CRI-O's own configuration, which adds to storage.conf and overrides it.

import { type CrioConf, isCrioHere, readCrioConf, storesNamed } from '../../engines/crio-conf.ts'
import type { SilentEngine } from '../../engines/here.ts'
import type { Files } from '../../engines/machine.ts'
import { readStorageConf } from '../../engines/storage-conf.ts'
import type { FoundEngine } from '../../engines/versions.ts'
import { describe } from '../../errors.ts'
import { storesOf } from '../setup/changes.ts'
import { type Check, type Finding, ok, problem, together } from './check.ts'
import { absent, misnamed, namedOf } from './storage.ts'

export interface CrioNeeds {
  root: string
  /** The files that CRI-O may read; the first that is there counts. */
  crioStorageConfs: readonly string[]
  /** Where system-wide settings are; /etc. */
  etc: string
  files: Files
  engines: readonly FoundEngine[]
  /** Installed, but of no known version. */
  silent: readonly SilentEngine[]
}

/** Names of one driver. */
const OVERLAY = ['overlay', 'overlay2']

export const crioConf: Check<CrioNeeds> = {
  name: 'crio.conf',
  async run({ root, crioStorageConfs, etc, files, engines, silent }) {
    let conf: CrioConf | undefined
    try {
      conf = await readCrioConf(etc, files)
    } catch (error) {
      return problem(describe(error), 'Repair it: CRI-O does not start with it.')
    }
    const named = storesNamed(conf?.options ?? [])
    const mistakes = misnamed(named, root)
    const wrong = mistakes.length > 0 ? mistakes : await absent(named, files)
    // a CRI-O without a file repairs
    const isHere = await isCrioHere(etc, [...engines, ...silent], files)
    const known = await crioNames(conf, root, crioStorageConfs, files)
    const all = [...wrong, ...driver(conf, known), ...(isHere ? repair(conf, known) : [])]
    const paths = conf?.paths.join(', ') ?? ''
    if (all.length > 0) {
      const finding = together(all)
      return paths === '' ? finding : { ...finding, found: `${paths}: ${finding.found}` }
    }
    if (conf === undefined) return ok(`there is none in ${etc}/crio`)
    if (conf.paths.length === 0) return ok('says nothing of storage: storage.conf counts')
    return ok(`${paths}: ${summary(conf, named)}`)
  },
}

/** Which of our stores CRI-O is told of, by storage.conf or its own options. What cannot be read names nothing. */
export async function crioNames(
  conf: CrioConf | undefined,
  root: string,
  storageConfs: readonly string[],
  files: Files,
): Promise<{ layers: boolean; images: boolean }> {
  const { layers, images } = storesOf(root)
  const named = storesNamed(conf?.options ?? [])
  let shared = { layers: false, images: false }
  try {
    const storage = await readStorageConf(storageConfs, files)
    if (storage !== undefined) shared = namedOf(storage.parsed, root)
  } catch {
    // the check of storage.conf says so
  }
  return {
    layers: shared.layers || named.layers.includes(layers.strings[0] as string), // it has one
    images: shared.images || named.images.includes(images.strings[0] as string),
  }
}

function driver(conf: CrioConf | undefined, named: { layers: boolean; images: boolean }): Finding[] {
  if (conf?.driver === undefined || OVERLAY.includes(conf.driver) || !(named.layers || named.images)) return []
  const found = `storage_driver is ${JSON.stringify(conf.driver)}: only overlay can use the stores`
  return [problem(found, 'Set storage_driver = "overlay", or take the line out.')]
}

/** CRI-O's own check takes each container on an additional image store for damaged, and ends in a wipe (docs/crio.md). */
function repair(conf: CrioConf | undefined, named: { images: boolean }): Finding[] {
  if (!named.images || conf?.repair === false) return []
  return [
    problem(
      'internal_repair is on: after a crash CRI-O wipes its storage, below containers on an additional image store',
      'Run lazylayer setup crio (or podman), which turns it off, unless a file that CRI-O reads later turns it on.',
    ),
  ]
}

function summary(
  { root, imageStore }: CrioConf,
  named: { layers: readonly string[]; images: readonly string[] },
): string {
  const stores = [...named.layers, ...named.images]
  const parts = [
    ...(root === undefined ? [] : [`storage is in ${root}, whatever storage.conf says`]),
    ...(imageStore === undefined ? [] : [`new images go to ${imageStore}`]),
    ...(stores.length === 0 ? [] : [`${stores.join(', ')} beside the stores of storage.conf`]),
  ]
  return parts.join('; ') || 'the stores of storage.conf count'
}

// The check of storage.conf: whether engines look into our stores, and the usual mistakes.
import { dirname } from 'node:path'
import type { Files } from '../../engines/machine.ts'
import { readStorageConf, type StorageConf } from '../../engines/storage-conf.ts'
import { stringsAt } from '../../engines/toml-edit.ts'
import { describe } from '../../errors.ts'
import { isWithin } from '../../mount/overlays.ts'
import { storesOf } from '../setup/changes.ts'
import { type DoctorCheck, type Finding, ok, problem, together, warning } from './check.ts'

export interface StorageNeeds {
  root: string
  /** The files that engines may read; the first that is there counts. */
  storageConfs: readonly string[]
  files: Files
}

const TABLE = ['storage', 'options']
const FIX = 'Run lazylayer setup podman (or crio), which writes both keys.'

export const storage: DoctorCheck<StorageNeeds> = {
  name: 'storage.conf',
  async run({ root, storageConfs, files }) {
    try {
      const conf = await readStorageConf(storageConfs, files)
      if (conf === undefined) return warning('there is none, so engines look into no store of ours', FIX)
      return await checkConf(conf, root, files)
    } catch (error) {
      return problem(describe(error), 'Repair it: no engine can read it either.')
    }
  },
}

async function checkConf({ path, parsed }: StorageConf, root: string, files: Files): Promise<Finding> {
  try {
    const wrong = mistakes(parsed, root)
    const found = wrong.length > 0 ? wrong : await absent(storesIn(parsed), files)
    if (found.length > 0) return inFile(path, together(found))
    const { layers, images } = namedOf(parsed, root)
    if (!layers && !images) return warning(`${path} names no store of ${root}`, FIX)
    const named = [...(layers ? ['the layer store'] : []), ...(images ? ['the image store'] : [])].join(' and ')
    return ok(`${path} names ${named} of ${root}`)
  } catch (error) {
    return inFile(path, problem(describe(error), 'Repair it: no engine can read it either.'))
  }
}

/** Which of our stores are named as they must be. @throws Failure usage: a key holds something else */
export function namedOf(parsed: Record<string, unknown>, root: string): { layers: boolean; images: boolean } {
  const { layers, images } = storesOf(root)
  const has = (of: typeof layers) => stringsAt(parsed, of).includes(of.strings[0] as string) // it has one
  return { layers: has(layers), images: has(images) }
}

/** All stores that are named, anybody's. @throws Failure usage: a key holds something else */
export function storesIn(parsed: Record<string, unknown>): { layers: string[]; images: string[] } {
  const strings = (key: string) => stringsAt(parsed, { table: TABLE, key })
  return { layers: strings('additionallayerstores'), images: strings('additionalimagestores') }
}

/** What is written, but not as engines want it. @throws Failure usage */
export function mistakes(parsed: Record<string, unknown>, root: string): Finding[] {
  const { layers, images } = storesOf(root)
  const found = misnamed({ layers: stringsAt(parsed, layers), images: stringsAt(parsed, images) }, root)
  for (const key of [layers.key, images.key]) {
    const misplaced = [['storage'], ['storage', 'options', 'overlay'], []].find((table) => hasKey(parsed, table, key))
    if (misplaced === undefined) continue
    const where = misplaced.length === 0 ? 'outside of all tables' : `in [${misplaced.join('.')}]`
    found.push(problem(`${key} stands ${where}, where engines do not look`, 'Move it below [storage.options].'))
  }
  const { layers: inLayers, images: inImages } = namedOf(parsed, root)
  const driver = valueAt(parsed, ['storage', 'driver'])
  if ((inLayers || inImages) && typeof driver === 'string' && driver !== '' && driver !== 'overlay') {
    found.push(
      problem(`driver is ${JSON.stringify(driver)}: only overlay can use the stores`, 'Set driver = "overlay".'),
    )
  }
  return found
}

/** Stores of ours whose names are not those that they have. */
export function misnamed(named: { layers: readonly string[]; images: readonly string[] }, root: string): Finding[] {
  const { layers, images } = storesOf(root)
  const [wantedLayers, wantedImages] = [layers.strings[0] as string, images.strings[0] as string] // one each
  const ours = (path: string) => isWithin(path, root)
  const found: Finding[] = []
  for (const entry of named.layers) {
    const path = entry.split(':')[0] as string // split gives one at least
    if (!ours(path) || entry === wantedLayers) continue
    const why = path === layers.directory ? 'lacks ":ref"' : 'is not the layer store'
    const what = `additionallayerstores has ${JSON.stringify(entry)}, which ${why}`
    found.push(problem(what, `Write ${JSON.stringify(wantedLayers)}.`))
  }
  for (const entry of named.images) {
    if (!ours(entry) || entry === wantedImages) continue
    const what = `additionalimagestores has ${JSON.stringify(entry)}, which is not the image store`
    found.push(problem(what, `Write ${JSON.stringify(wantedImages)}.`))
  }
  return found
}

/** Stores, anybody's, that are not there: then every command of the engine fails. */
export async function absent(
  { layers, images }: { layers: readonly string[]; images: readonly string[] },
  files: Files,
): Promise<Finding[]> {
  const directories = layers.map((each) => each.split(':')[0] as string) // split gives one at least
  const looked = [...new Set([...directories, ...images])].map(async (path): Promise<Finding[]> => {
    const seen = await files.look(path)
    if (seen?.kind === 'directory') return []
    const what =
      seen === undefined ? 'is not there' : seen.kind === 'file' ? 'is no directory' : `is a mount that is ${seen.kind}`
    return [
      problem(
        `${path} ${what}: every command of the engine fails`,
        `Start what serves ${dirname(path)}, or take it out.`,
      ),
    ]
  })
  const locks = images.map(async (path): Promise<Finding[]> => {
    if ((await files.look(path))?.kind !== 'directory') return []
    const lock = `${path}/overlay-layers/layers.lock`
    if ((await files.look(lock)) !== undefined) return []
    return [
      problem(`${lock} is not there: every command of the engine fails`, 'Start lazylayer serve, which makes it.'),
    ]
  })
  return (await Promise.all([...looked, ...locks])).flat()
}

function inFile(path: string, finding: Finding): Finding {
  return { ...finding, found: `${path}: ${finding.found}` }
}

function valueAt(parsed: Record<string, unknown>, path: readonly string[]): unknown {
  let at: unknown = parsed
  for (const name of path)
    at = typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[name] : undefined // an object
  return at
}

function hasKey(parsed: Record<string, unknown>, table: readonly string[], key: string): boolean {
  return valueAt(parsed, [...table, key]) !== undefined
}

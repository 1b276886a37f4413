// The check of storage.conf: whether engines look into our stores, and the usual mistakes.
import { dirname } from 'node:path'
import { describe, Failure } from '../../errors.ts'
import { storesOf } from '../setup/changes.ts'
import { parseText, stringsAt } from '../setup/toml-edit.ts'
import { type Check, type Files, type Finding, ok, problem, together, warning } from './check.ts'

export interface StorageNeeds {
  root: string
  /** The files that engines may read; the first that is there counts. */
  storageConfs: readonly string[]
  files: Files
}

export interface StorageConf {
  path: string
  parsed: Record<string, unknown>
}

const TABLE = ['storage', 'options']
const FIX = 'Run lazylayer setup podman (or crio), which writes both keys.'

export const storage: Check<StorageNeeds> = {
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
    const found = wrong.length > 0 ? wrong : await absent(parsed, files)
    if (found.length > 0) return inFile(path, together(found))
    const { layers, images } = namedOf(parsed, root)
    if (!layers && !images) return warning(`${path} names no store of ${root}`, FIX)
    const named = [...(layers ? ['the layer store'] : []), ...(images ? ['the image store'] : [])].join(' and ')
    return ok(`${path} names ${named} of ${root}`)
  } catch (error) {
    return inFile(path, problem(describe(error), 'Repair it: no engine can read it either.'))
  }
}

/** @throws Failure usage, system */
export async function readStorageConf(paths: readonly string[], files: Files): Promise<StorageConf | undefined> {
  for (const path of paths) {
    const text = await files.read(path)
    if (text === undefined) continue
    try {
      return { path, parsed: parseText(text) }
    } catch (cause) {
      throw Failure.usage(`${path} cannot be read`, { cause })
    }
  }
  return undefined
}

/** Which of our stores are named as they must be. @throws Failure usage: a key holds something else */
export function namedOf(parsed: Record<string, unknown>, root: string): { layers: boolean; images: boolean } {
  const { layers, images } = storesOf(root)
  const has = (of: typeof layers) => stringsAt(parsed, of).includes(of.strings[0] as string) // it has one
  return { layers: has(layers), images: has(images) }
}

/** What is written, but not as engines want it. @throws Failure usage */
export function mistakes(parsed: Record<string, unknown>, root: string): Finding[] {
  const found: Finding[] = []
  const { layers, images } = storesOf(root)
  const [wantedLayers, wantedImages] = [layers.strings[0] as string, images.strings[0] as string] // one each
  const ours = (path: string) => path === root || path.startsWith(`${root}/`)
  for (const entry of stringsAt(parsed, layers)) {
    const path = entry.split(':')[0] as string // split gives one at least
    if (!ours(path) || entry === wantedLayers) continue
    const why = path === layers.directory ? 'lacks ":ref"' : 'is not the layer store'
    found.push(
      problem(
        `additionallayerstores has ${JSON.stringify(entry)}, which ${why}`,
        `Write ${JSON.stringify(wantedLayers)}.`,
      ),
    )
  }
  for (const entry of stringsAt(parsed, images)) {
    if (!ours(entry) || entry === wantedImages) continue
    found.push(
      problem(
        `additionalimagestores has ${JSON.stringify(entry)}, which is not the image store`,
        `Write ${JSON.stringify(wantedImages)}.`,
      ),
    )
  }
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

/** Stores, anybody's, that are not there: then every command of the engine fails. */
async function absent(parsed: Record<string, unknown>, files: Files): Promise<Finding[]> {
  const layers = stringsAt(parsed, { table: TABLE, key: 'additionallayerstores' }).map(
    (each) => each.split(':')[0] as string,
  )
  const images = stringsAt(parsed, { table: TABLE, key: 'additionalimagestores' })
  const looked = [...new Set([...layers, ...images])].map(async (path): Promise<Finding[]> => {
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

// CRI-O's storage settings: crio.conf, then every file below crio.conf.d, over what storage.conf says. Of single values the last one
// counts; lists of storage options are put together (CRI-O 1.23 and later).

import { join } from 'node:path'
import { Failure } from '../errors.ts'
import type { Files } from './machine.ts'
import { parseText } from './toml-edit.ts'
import type { Engine } from './versions.ts'

export interface CrioConf {
  /** Files that say something of storage. */
  paths: readonly string[]
  /** `root`, `runroot`, `imagestore`, `storage_driver`: undefined where storage.conf's counts. */
  root: string | undefined
  run: string | undefined
  imageStore: string | undefined
  driver: string | undefined
  /** `internal_repair`: whether CRI-O checks its storage after an unclean stop; undefined where its default counts: it does. */
  repair: boolean | undefined
  /** `storage_option`: `DRIVER.KEY=VALUE`, in order. */
  options: readonly string[]
}

/** Whether CRI-O is among the engines that were found, or has settings: its program may not be in this process's PATH, or not yet. */
export async function isCrioHere(
  etc: string,
  engines: readonly { engine: Engine }[],
  files: Pick<Files, 'look'>,
): Promise<boolean> {
  return engines.some((each) => each.engine === 'crio') || (await files.look(join(etc, 'crio'))) !== undefined
}

const FILES_MAX = 256
const DEPTH_MAX = 8

/** Undefined where CRI-O has no file. @throws Failure usage: naming the file and what is wrong in it; system, limit */
export async function readCrioConf(
  etc: string,
  files: Pick<Files, 'read' | 'look' | 'list'>,
): Promise<CrioConf | undefined> {
  const main = join(etc, 'crio/crio.conf')
  const paths = [main, ...(await filesBelow(join(etc, 'crio/crio.conf.d'), files, DEPTH_MAX))]
  if (paths.length > FILES_MAX) throw Failure.limit(`${etc}/crio/crio.conf.d holds more than ${FILES_MAX} files`)
  let found: CrioConf | undefined
  for (const path of paths) {
    const text = await files.read(path)
    if (text === undefined) continue
    found = over(found ?? NOTHING, tableOf(text, path), path)
  }
  return found
}

const NOTHING: CrioConf = {
  paths: [],
  root: undefined,
  run: undefined,
  imageStore: undefined,
  driver: undefined,
  repair: undefined,
  options: [],
}

/** In the order of their names; CRI-O reads every file, whatever it is called. */
async function filesBelow(dir: string, files: Pick<Files, 'look' | 'list'>, depth: number): Promise<string[]> {
  const found: string[] = []
  if (depth === 0) return found
  for (const name of (await files.list(dir)).slice(0, FILES_MAX + 1)) {
    const path = join(dir, name)
    if ((await files.look(path))?.kind === 'directory') found.push(...(await filesBelow(path, files, depth - 1)))
    else found.push(path)
  }
  return found
}

type Table = Record<string, unknown>

function tableOf(text: string, path: string): Table {
  let parsed: Table
  try {
    parsed = parseText(text)
  } catch (cause) {
    throw Failure.usage(`${path} cannot be read`, { cause })
  }
  const { crio } = parsed
  if (crio === undefined) return {}
  if (typeof crio !== 'object' || crio === null || Array.isArray(crio)) throw Failure.usage(`${path}: crio is no table`)
  return crio as Table // an object that is no array
}

/** What `table` sets, over what was set before. */
function over(before: CrioConf, table: Table, path: string): CrioConf {
  const string = (key: string): string | undefined => {
    const value = table[key]
    if (value === undefined || value === '') return undefined
    if (typeof value !== 'string') throw Failure.usage(`${path}: ${key} is no text`)
    return value
  }
  const given = table.storage_option ?? []
  if (!Array.isArray(given) || !given.every((each) => typeof each === 'string')) {
    throw Failure.usage(`${path}: storage_option is no list of texts`)
  }
  const { internal_repair: repair } = table
  if (repair !== undefined && typeof repair !== 'boolean') {
    throw Failure.usage(`${path}: internal_repair is neither true nor false`)
  }
  const keys = ['root', 'runroot', 'imagestore', 'storage_driver', 'storage_option', 'internal_repair']
  const says = keys.some((key) => table[key] !== undefined && table[key] !== '')
  return {
    paths: says ? [...before.paths, path] : before.paths,
    root: string('root') ?? before.root,
    run: string('runroot') ?? before.run,
    imageStore: string('imagestore') ?? before.imageStore,
    driver: string('storage_driver') ?? before.driver,
    repair: repair ?? before.repair,
    options: [...before.options.filter((each) => !given.includes(each)), ...given],
  }
}

/** The stores that options name: `overlay.additionallayerstore=DIR:ref`, `overlay.imagestore=DIR`. */
export function storesNamed(options: readonly string[]): { layers: string[]; images: string[] } {
  const layers: string[] = []
  const images: string[] = []
  for (const option of options) {
    const equals = option.indexOf('=')
    const value = option.slice(equals + 1).trim()
    const name = option
      .slice(0, Math.max(equals, 0))
      .trim()
      .toLowerCase()
      .replace(/^(overlay2?)?\./, '')
    // the driver takes several in one option
    if (name === 'additionallayerstore') layers.push(...value.split(',').filter(Boolean))
    if (name === 'imagestore' || name === 'additionalimagestore') images.push(...value.split(',').filter(Boolean))
  }
  return { layers, images }
}

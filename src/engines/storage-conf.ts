// storage.conf: the first of several that is there is the one that engines read.
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { configHome, type Places } from '../registry/places.ts'
import type { Files } from './machine.ts'
import { parseText } from './toml-edit.ts'

export interface StorageConf {
  path: string
  parsed: Record<string, unknown>
}

/** Where engines look when neither the user nor /etc has one. */
export const VENDOR_STORAGE_CONF = '/usr/share/containers/storage.conf'

/** The first that is there is the one that engines read. */
export function storageConfsOf(places: Places): string[] {
  const named = places.env.CONTAINERS_STORAGE_CONF
  if (named) return [named]
  const system = crioStorageConfs(places.etc)
  return places.uid === 0 ? system : [join(configHome(places), 'containers/storage.conf'), ...system]
}

/** As above, for CRI-O: it runs as root, with the environment of its unit. */
export function crioStorageConfs(etc: string): string[] {
  return [join(etc, 'containers/storage.conf'), VENDOR_STORAGE_CONF]
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

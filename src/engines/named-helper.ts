// The auth helper that registries.conf names.

import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { configHome, type Places } from '../registry/places.ts'
import type { Files } from './machine.ts'
import { parseText } from './toml-edit.ts'

const KEY = 'additional-layer-store-auth-helper'

/** As engines read it: the last file that has the key counts. @throws Failure */
export async function namedHelper(
  places: Places,
  files: Pick<Files, 'read' | 'look' | 'list'>,
): Promise<string | undefined> {
  const system = join(places.etc, 'containers')
  const user = join(configHome(places), 'containers')
  const named = places.env.CONTAINERS_REGISTRIES_CONF || undefined
  const own = join(user, 'registries.conf')
  const main = named ?? ((await files.look(own)) === undefined ? join(system, 'registries.conf') : own)
  const dropIns = [system, user].map(async (folder) => {
    const dir = join(folder, 'registries.conf.d')
    return (await files.list(dir)).filter((name) => name.endsWith('.conf')).map((name) => join(dir, name))
  })
  let found: string | undefined
  for (const path of [main, ...(await Promise.all(dropIns)).flat()]) {
    const value = (await parsed(path, files))?.[KEY]
    if (typeof value === 'string' && value !== '') found = value
  }
  return found
}

async function parsed(path: string, files: Pick<Files, 'read'>): Promise<Record<string, unknown> | undefined> {
  const text = await files.read(path)
  if (text === undefined) return undefined
  try {
    return parseText(text)
  } catch (cause) {
    throw Failure.usage(`${path} cannot be read`, { cause })
  }
}

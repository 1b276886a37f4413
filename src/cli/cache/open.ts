// A cache that is there already, beside agents that use it.
import { stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { places } from '../../agent/agent-places.ts'
import { log } from '../../agent/log.ts'
import { text, type Values } from '../../agent/values.ts'
import { Failure } from '../../errors.ts'
import { openNative } from '../../mount/no-addon.ts'
import type { RoomLimits } from '../../store/room-limits.ts'
import { Store } from '../../store/store.ts'

/** Those that an agent was given are its own business. */
const NO_LIMITS: RoomLimits = { max: { percent: 100 }, minFree: { bytes: 0 } }

/** That of --cache, which the caller closes. @throws Failure missing: there is none; as Store.open */
export async function openCache(values: Values): Promise<Store> {
  const dir = resolve(text(values, 'cache') ?? places().cache)
  await stat(join(dir, 'version')).catch((cause) => {
    throw Failure.missing(`there is no cache in ${dir}`, { cause, fix: 'Name another one with --cache DIR.' })
  })
  const native = openNative()
  return await Store.open(dir, native, log, native.disk === null ? {} : { disk: native.disk, limits: NO_LIMITS })
}

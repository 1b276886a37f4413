// A file of settings that setup edits in place: as it was it is kept beside it, and undoing leaves what others have changed since.
import { join } from 'node:path'
import { valueAt } from '../../engines/toml-values.ts'
import { Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import type { Places } from '../../registry/places.ts'
import { DROP_IN, MADE } from './changes.ts'
import type { Change } from './plan.ts'

/** The drop-in of a service that asks the agent: the agent must be there before. */
export const BEHIND_AGENT = `${MADE}
[Unit]
Wants=lazylayer.service
After=lazylayer.service
`

/** What the copy of a file ends in. */
export const BACKUP = '.before-lazylayer'

/**
 * @param empty what is edited where there is no file; it begins with MADE
 * @param suffix of the copy's name
 * @throws Failure as edit does, with the file's name; system
 */
export async function settingsChange(
  path: string,
  empty: string,
  suffix: string,
  edit: (text: string) => string,
): Promise<Change & { after: string }> {
  const before = await readText(path)
  const after = named(path, () => edit(before ?? empty))
  const backup = `${path}${suffix}`
  const isFirst = before !== undefined && before !== after && (await readText(backup)) === undefined
  return { path, before, after, ...(isFirst ? { backup: { path: backup, keep: true } } : {}) }
}

/**
 * Undefined: there is no file.
 * @param edit is given the copy, too, if there is one
 * @throws Failure as settingsChange
 */
export async function settingsUndo(
  path: string,
  suffix: string,
  edit: (text: string, original: string | undefined) => string,
): Promise<Change | undefined> {
  const before = await readText(path)
  if (before === undefined) return undefined
  const backup = `${path}${suffix}`
  const original = await readText(backup)
  const left = named(path, () => edit(before, original))
  // a file of ours may have become another client's, too
  const isMade = before.startsWith(MADE) && (original ?? MADE).startsWith(MADE) && !hasPlugins(left)
  return {
    path,
    before,
    after: isMade ? undefined : left,
    ...(original === undefined ? {} : { backup: { path: backup, keep: false } }),
  }
}

/** The drop-in of a service. @param after undefined: it goes */
export async function unitChange(
  { etc }: Pick<Places, 'etc'>,
  unit: string,
  after: string | undefined,
): Promise<Change> {
  const path = join(etc, `systemd/system/${unit}.service.d`, DROP_IN)
  return { path, before: await readText(path), after }
}

/** Has errors name the file. */
function named<T>(path: string, edit: () => T): T {
  try {
    return edit()
  } catch (cause) {
    if (!(cause instanceof Failure)) throw cause
    const fix = cause.fix === undefined ? {} : { fix: cause.fix }
    throw new Failure(cause.code, `${path} is not edited`, { cause, ...fix })
  }
}

function hasPlugins(text: string): boolean {
  const found = valueAt(text, { table: [], key: 'proxy_plugins' })
  return typeof found === 'object' && found !== null && Object.keys(found).length > 0
}

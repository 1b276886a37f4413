// Who may look into a store: the user who runs the agent, unless `serve --store-mode` says otherwise. Whoever may reads every image in
// it, and has the agent ask registries for more.
//
//   PARENT   where it is ours (the default place's, or made for this store), it has that mode
//   ROOT     has it as well, mounted or not: PARENT may be somebody else's, and open
import { chmod, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Failure } from '../errors.ts'

/** Of a store that nobody else looks into. */
export const CLOSED = 0o700
const OTHERS = 0o077
const OTHERS_WRITE = 0o022

/** @param text of `--store-mode`, in octal. @throws Failure usage */
export function storeMode(text: string | undefined): number {
  if (text === undefined) return CLOSED
  if (!/^0?[0-7]{3}$/.test(text)) {
    throw Failure.usage(`--store-mode ${JSON.stringify(text)} is no mode`, {
      fix: 'Write three octal digits, as 0755.',
    })
  }
  const mode = Number.parseInt(text, 8)
  if ((mode & CLOSED) !== CLOSED) {
    throw Failure.usage(`--store-mode ${text} closes the store to its own agent`, {
      fix: 'Let it begin with 7, as 0755.',
    })
  }
  if ((mode & OTHERS_WRITE) !== 0) {
    throw Failure.usage(`--store-mode ${text} lets other users replace the store`, {
      fix: 'Leave writing out, as 0755.',
    })
  }
  return mode
}

/**
 * Gives ROOT its mode, and what is above it where that is ours.
 * @param root the store, with no symlink in it and nothing mounted on it
 * @param byDefault where it is when nobody names it
 * @returns the directory that keeps others out although `mode` lets them in
 * @throws Failure usage; what the system throws
 */
export async function setAccess(root: string, mode: number, byDefault: string): Promise<string | undefined> {
  const { uid } = await stat(root)
  const own = process.geteuid?.() ?? uid
  if (uid !== own) {
    throw Failure.usage(`${root} belongs to user ${uid}, who could look into it`, {
      fix: `chown ${own} ${root}, or name another directory.`,
    })
  }
  await chmod(root, mode)
  if (root === byDefault) await chmod(dirname(root), mode)
  return (mode & OTHERS) === 0 ? undefined : await closedAbove(root, async (dir) => (await stat(dir)).mode)
}

/** The directory above that nobody but its owner enters, if there is one. */
export async function closedAbove(
  path: string,
  modeOf: (dir: string) => Promise<number | undefined>,
): Promise<string | undefined> {
  for (let at = path; at !== dirname(at); ) {
    at = dirname(at)
    const mode = await modeOf(at)
    if (mode !== undefined && isClosed(mode)) return at
  }
  return undefined
}

/** Whether nobody but the owner gets to what is below a directory of this mode. */
export function isClosed(mode: number): boolean {
  return (mode & 0o011) === 0
}

// Writes what was planned: whole files at once, with the mode and owner that they had, through symlinks to what these name.
import { randomUUID } from 'node:crypto'
import { chown, mkdir, open, realpath, rename, rmdir, stat, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Failure } from '../../errors.ts'
import { isAbsent, readText } from '../../registry/file.ts'
import type { Change } from './plan.ts'

/** @throws Failure system: also when the file is not what it was when the change was planned */
export async function apply({ path, before, after, backup }: Change): Promise<void> {
  try {
    if ((await readText(path)) !== before) {
      throw Failure.system(`${path} was changed just now`, { fix: 'Try again.' })
    }
    if (backup?.keep && before !== undefined) await write(backup.path, before, path)
    if (after === undefined) {
      await unlink(path)
      // a folder that setup made for this file alone; where there is more in it, it stays
      if (dirname(path).endsWith('.service.d')) await rmdir(dirname(path)).catch(() => {})
    }
    if (after !== undefined) await write(path, after, path)
    if (backup?.keep === false) await unlink(backup.path)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw Failure.system(`cannot write ${path}`, { cause, fix: 'Run it as the user whose file it is, or as root.' })
  }
}

/** @param like whose mode and owner it gets, if that is there */
async function write(path: string, text: string, like: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  const real = await realpath(path).catch((error) => {
    if (isAbsent(error)) return path
    throw error
  })
  const old = await stat(like).catch((error) => {
    if (isAbsent(error)) return undefined
    throw error
  })
  const temporary = `${real}.${randomUUID()}`
  const file = await open(temporary, 'wx', (old?.mode ?? 0o644) & 0o777)
  try {
    await file.writeFile(text)
    if (old !== undefined) {
      await file.chmod(old.mode & 0o777)
      await chown(temporary, old.uid, old.gid)
    }
    await file.sync()
    await file.close()
    await rename(temporary, real)
  } catch (error) {
    await file.close().catch(() => {}) // closed already, or the first error counts
    await unlink(temporary).catch(() => {}) // the same
    throw error
  }
}

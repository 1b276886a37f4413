// The highest rung that can serve a store on this machine, tried without leaving anything behind; the directory of the cache need not
// exist yet.
import { constants } from 'node:fs'
import { access, mkdtemp, open, rmdir, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import { type Rung, whyNoErofs } from '../mount/ladder.ts'
import type { NativeModule } from '../mount/native.ts'

/** A mount whose server hangs does not answer. */
const LOOK_TIMEOUT_MS = 2_000

export interface Trial {
  /** Undefined: a store cannot be served at all. */
  rung: Exclude<Rung, 'portable'> | undefined
  /** Why not a higher one. */
  why: string | undefined
}

/** Tries an EROFS mount of a file where the cache is, then whether /dev/fuse may be opened. Never rejects for what a machine is like. */
export async function tryRungs(native: NativeModule, cache: string): Promise<Trial> {
  const noErofs = await tryErofs(native, cache).catch(describe)
  if (noErofs === undefined) return { rung: 'erofs', why: undefined }
  const noFuse = await access('/dev/fuse', constants.R_OK | constants.W_OK).then(() => undefined, describe)
  return noFuse === undefined ? { rung: 'fuse', why: noErofs } : { rung: undefined, why: `${noErofs}; ${noFuse}` }
}

async function tryErofs(native: NativeModule, cache: string): Promise<string | undefined> {
  const folder = await Promise.race([nearest(cache), sleep(LOOK_TIMEOUT_MS, undefined, { ref: false })])
  if (folder === undefined) return `${cache} does not answer`
  const dir = await mkdtemp(join(tmpdir(), 'lazylayer-trial-'))
  try {
    const path = join(folder, `.lazylayer-trial-${process.pid}`)
    const file = await open(path, 'wx+', 0o600)
    try {
      await unlink(path)
      return await whyNoErofs(native, file, dir)
    } finally {
      await file.close()
    }
  } finally {
    await rmdir(dir)
  }
}

/** `dir`, or the directory that it would be made in. */
async function nearest(dir: string): Promise<string> {
  for (let at = dir; ; at = dirname(at)) {
    const there = await access(at).then(
      () => true,
      () => false,
    )
    if (there || at === dirname(at)) return at
  }
}

// The ladder of mounts: the highest rung that works here, found by trying.
import { type FileHandle, mkdir, mkdtemp, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, Failure } from '../errors.ts'
import type { Store } from '../store/store.ts'
import { writeImage } from '../tree/erofs.ts'
import { makeDirectory } from '../tree/inode.ts'
import type { NativeModule } from './native.ts'

/**
 * Highest first. erofs: metadata and cached data in the kernel; fuse: our server answers from the same image; portable: JavaScript
 * does, through fuse-native.
 */
export const RUNGS = ['erofs', 'fuse', 'portable'] as const
export type Rung = (typeof RUNGS)[number]

/** Those that can serve a store: fuse-native shows one image. */
export const SERVE_RUNGS = RUNGS.filter((each) => each !== 'portable')

export interface RungChoice {
  rung: Rung
  /** Why not a higher one; undefined on the highest, or when this one was asked for. */
  why: string | undefined
}

/**
 * Tries EROFS. Whether FUSE works is told by its mount: where that fails, and nothing was asked for, `portable` is what is left.
 * @param scratch a directory in which a mount point may be made for the trial
 * @throws Failure unsupported: a rung was asked for that does not work
 */
export async function chooseRung(
  wanted: Rung | 'auto',
  native: NativeModule,
  store: Store,
  scratch: string,
): Promise<RungChoice> {
  if (wanted === 'fuse' || wanted === 'portable') return { rung: wanted, why: undefined }
  const why = await tryErofs(native, store, scratch)
  if (why === undefined) return { rung: 'erofs', why }
  if (wanted === 'auto') return { rung: 'fuse', why }
  throw Failure.unsupported('EROFS cannot be mounted here', {
    why,
    fix: 'It needs root, Linux 6.12, and a cache directory on a disk filesystem; --mount fuse works without.',
  })
}

/** @returns why it cannot be mounted */
async function tryErofs(native: NativeModule, store: Store, scratch: string): Promise<string | undefined> {
  await mkdir(scratch, { recursive: true, mode: 0o700 })
  const dir = await mkdtemp(join(scratch, 'trial-'))
  try {
    const file = await store.temporary()
    try {
      return await whyNoErofs(native, file, dir)
    } finally {
      await file.close()
    }
  } catch (error) {
    if (error instanceof Failure && error.code === 'system') return describe(error) // a cache that takes nothing
    throw error
  } finally {
    await rmdir(dir)
  }
}

/**
 * Tries a mount, which is the only way to know: the kernel's version does not tell, nor do the rights of this process, and the image
 * must lie on a filesystem that can be a backing file (neither tmpfs nor overlayfs).
 * @param file empty, where images lie
 * @param dir an empty directory to mount on
 * @returns why EROFS cannot be used here; undefined when it can
 */
export async function whyNoErofs(native: NativeModule, file: FileHandle, dir: string): Promise<string | undefined> {
  try {
    await file.writeFile(writeImage(makeDirectory(), []))
    await native.mountErofs(file.fd, [], dir, undefined)
    await native.unmount(dir, true)
    return undefined
  } catch (error) {
    return describe(error)
  }
}

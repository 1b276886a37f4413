// What an engine finds at a layer's path when no agent serves it. Podman 5 sums up the sizes of images without a DiffID by walking
// `diff`, in every `podman images`, and fails when it is missing. An empty directory would satisfy it and be mounted as a lower
// layer: a container would start with files missing. A regular file has a size too, and no overlay mounts it.
import { type FileHandle, mkdir, open, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const TEXT = 'This layer is served by the lazylayer agent, which is not running. Start it: lazylayer serve\n'

export class StandIns {
  readonly #below: FileHandle

  private constructor(below: FileHandle) {
    this.#below = below
  }

  /** Must be called before anything is mounted on `root`: the open directory is the way below the mount. */
  static async open(root: string): Promise<StandIns> {
    return new StandIns(await open(root, 'r'))
  }

  /** By a descriptor of what lies below a mount that is there already. */
  static async below(fd: number): Promise<StandIns> {
    return new StandIns(await open(`/proc/self/fd/${fd}`, 'r'))
  }

  get fd(): number {
    return this.#below.fd
  }

  /** @throws the system's errors, but not when it is there */
  async put(path: readonly string[]): Promise<void> {
    const folder = join(`/proc/self/fd/${this.#below.fd}`, ...path)
    await mkdir(folder, { recursive: true, mode: 0o755 })
    await writeFile(join(folder, 'diff'), TEXT, { mode: 0o444, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }

  async has(path: readonly string[]): Promise<boolean> {
    const found = await stat(join(`/proc/self/fd/${this.#below.fd}`, ...path, 'diff')).catch(() => undefined) // not there, or as good as
    return found?.isFile() === true
  }

  async close(): Promise<void> {
    await this.#below.close()
  }
}

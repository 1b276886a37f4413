// The line to the keeper: the small parent process that detaches this agent's mounts when the agent dies, however it does.
import { writeSync } from 'node:fs'

/** Set by the keeper: the descriptor it reads records from, each `mount PATH` or `unmount PATH` and a NUL. */
const VARIABLE = 'LAZYLAYER_KEEPER'

export class Keeper {
  readonly #fd: number | undefined

  private constructor(fd: number | undefined) {
    this.#fd = fd
  }

  /** The keeper this process runs under, if it does; otherwise its messages go nowhere. */
  static current(env: NodeJS.ProcessEnv): Keeper {
    const fd = Number(env[VARIABLE])
    return new Keeper(Number.isInteger(fd) && fd > 2 ? fd : undefined)
  }

  get present(): boolean {
    return this.#fd !== undefined
  }

  /** Before mount(2), so that no death comes too early. `dir`: absolute, without symlinks. */
  mounting(dir: string): void {
    this.#send(`mount ${dir}\0`)
  }

  unmounted(dir: string): void {
    this.#send(`unmount ${dir}\0`)
  }

  #send(record: string): void {
    if (this.#fd === undefined) return
    try {
      writeSync(this.#fd, record)
    } catch {
      // a keeper that died cannot be told anything; the next start detaches what it would have
    }
  }
}

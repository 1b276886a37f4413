// The line to the keeper: the small parent process that holds this agent's connection to the kernel, starts the next agent when this one
// dies, however it does, and detaches its mounts where there is nobody to go on. native/src/bin/keeper.rs has what is said.
import { readSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import type { NativeModule } from './native.ts'

/**
 * Set by the keeper: the socket that it hears us by; what an agent before us left; whether that one is still there; whether what is held
 * outlives the keeper.
 */
const SOCKET = 'LAZYLAYER_KEEPER'
const STORE = 'LAZYLAYER_STORE'
const HELD = 'LAZYLAYER_HELD'
const BESIDE = 'LAZYLAYER_BESIDE'
export const PATIENCE_MS = 30_000
/** It takes an agent that is silent for four times as long for one that hangs. */
const BEAT_MS = 1_000
const HEAR_MS = 10
const MESSAGE_MAX_BYTES = 1024
/** It detaches mounts, which takes milliseconds each. */
const REFUSED_MS = 20_000

export class Keeper {
  readonly #fd: number | undefined
  /** Descriptors of an agent that is gone: of its connection, and of what goes with it. Ours now. */
  readonly held: readonly number[]
  /** Whether that agent is still there: then nothing may be read of its connection before `prepared` resolves. */
  readonly isBeside: boolean

  /** Whether systemd hands what is held to the next keeper. */
  readonly #isStored: boolean
  /** How long programs wait when there is nobody to go on. 0: nobody is to. */
  readonly #patienceMs: number
  /** It died. */
  #isAlone = false

  private constructor(fd: number | undefined, env: NodeJS.ProcessEnv, patienceMs: number) {
    const held = (fd === undefined ? undefined : env[HELD])?.split(',').map(Number) ?? []
    this.#fd = fd
    this.held = held.every((each) => Number.isInteger(each) && each > 2) ? held : []
    this.isBeside = fd !== undefined && env[BESIDE] === '1'
    this.#isStored = fd !== undefined && env[STORE] === '1'
    this.#patienceMs = patienceMs
    if (patienceMs > 0) this.#send(`patience ${patienceMs}`)
  }

  /**
   * The keeper this process runs under, if it does; otherwise its messages go nowhere.
   * @param patienceMs how long programs wait for an agent that goes on; 0: none is to
   */
  static current(env: NodeJS.ProcessEnv, patienceMs = PATIENCE_MS): Keeper {
    const fd = Number(env[SOCKET])
    const isKept = Number.isInteger(fd) && fd > 2
    const keeper = isKept ? new Keeper(fd, env, patienceMs) : new Keeper(undefined, env, 0)
    // what this process starts has other descriptors by these numbers
    for (const each of [SOCKET, HELD, BESIDE, STORE]) delete env[each]
    return keeper
  }

  /** Whether this process is to go on with what another agent left: it knows all that is asked for then. */
  static isSuccessor(env: NodeJS.ProcessEnv): boolean {
    return env[HELD] !== undefined
  }

  get present(): boolean {
    return this.#fd !== undefined
  }

  /** Whether another agent goes on when this one dies. */
  get succeeds(): boolean {
    return this.present && this.#patienceMs > 0
  }

  /** Before mount(2), so that no death comes too early. `dir`: absolute, without symlinks. */
  mounting(dir: string): void {
    this.#send(`mount ${dir}`)
  }

  unmounted(dir: string): void {
    this.#send(`unmount ${dir}`)
  }

  /** Has a successor go on with a connection. @returns whether it would */
  hold(native: Pick<NativeModule, 'sendDescriptors'>, descriptors: readonly number[]): boolean {
    if (this.#fd === undefined) return false
    try {
      native.sendDescriptors(this.#fd, 'hold\0', [...descriptors])
      return true
    } catch {
      return false // it died
    }
  }

  /** Everything is served. From now on a process that is silent is killed. */
  ready(): void {
    this.#send('ready')
    if (this.#fd !== undefined) setInterval(() => this.#send('beat'), BEAT_MS).unref()
  }

  /**
   * This process ends, and leaves what is held to the next keeper's.
   * @returns whether there can be one: somebody holds it meanwhile
   */
  leave(): boolean {
    if (!this.succeeds || !this.#isStored) return false
    this.#send('leave')
    return true
  }

  /** What was held is served no more, and nobody is to go on with it. */
  end(): void {
    this.#send('end')
  }

  /**
   * Has the keeper start what the command has become, beside this process. Resolves when that could go on and this process is to leave, or
   * will not, and this one goes on. @returns whether it is to leave
   */
  async upgrade(): Promise<boolean> {
    this.#send('upgrade')
    for (;;) {
      const heard = this.#hear()
      if (heard.includes('yield')) return true
      if (heard.includes('kept') || this.#isAlone) return false
      await sleep(HEAR_MS)
    }
  }

  /** Says that this process could go on. Resolves when the one before it is gone. */
  async prepared(): Promise<void> {
    this.#send('prepared')
    while (!this.#hear().includes('go')) {
      if (this.#isAlone) throw Failure.aborted('the keeper is gone')
      await sleep(HEAR_MS)
    }
  }

  /** Has what was held detached. Resolves when it is. */
  async refuse(): Promise<void> {
    this.#send('refuse')
    for (let waited = 0; waited < REFUSED_MS && !this.#hear().includes('refused'); waited += HEAR_MS) {
      await sleep(HEAR_MS)
    }
  }

  #hear(): string[] {
    if (this.#fd === undefined) return []
    const bytes = new Uint8Array(MESSAGE_MAX_BYTES)
    const heard: string[] = []
    try {
      for (;;) {
        const length = readSync(this.#fd, bytes)
        if (length === 0) {
          this.#isAlone = true
          return heard
        }
        heard.push(...new TextDecoder().decode(bytes.subarray(0, length)).split('\0').slice(0, -1))
      }
    } catch {
      return heard // there is no more now
    }
  }

  #send(record: string): void {
    if (this.#fd === undefined) return
    try {
      writeSync(this.#fd, `${record}\0`)
    } catch {
      // a keeper that died cannot be told anything; the next start detaches what it would have
    }
  }
}

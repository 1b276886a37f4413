// A user's settings for a test: folders of their own instead of the machine's.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Limits } from '../../src/registry/limits.ts'
import type { Places } from '../../src/registry/places.ts'
import { Registries, type RegistriesOptions } from '../../src/registry/registries.ts'

/** Deadlines short enough for tests, long enough for a loaded machine. */
export const QUICK: Partial<Limits> = {
  pauseMs: 5,
  pauseMaxMs: 20,
  stallMs: 2_000,
  bearMs: 0,
  probeMs: 600_000,
  windowMs: 2_000,
  connectMs: 2_000,
}

/** Disposing of it closes its registries and removes its folder. */
export class Settings implements AsyncDisposable {
  readonly dir: string
  readonly places: Places
  readonly #open: Registries[] = []

  constructor(dir: string, env: Record<string, string>) {
    this.dir = dir
    const at = (name: string) => join(dir, name)
    this.places = { etc: at('etc'), home: at('home'), run: at('run'), uid: 1000, env }
  }

  static async make(env: Record<string, string> = {}): Promise<Settings> {
    return new Settings(await mkdtemp(join(tmpdir(), 'lazylayer-settings-')), env)
  }

  /** `path` is relative to the folder. */
  async write(path: string, content: string, mode = 0o600): Promise<string> {
    const file = join(this.dir, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, content, { mode })
    return file
  }

  /** Trusts this certificate for a host, as certs.d does. */
  trust(host: string, cert: string): Promise<string> {
    return this.write(`etc/containers/certs.d/${host}/ca.crt`, cert)
  }

  registries(options: RegistriesOptions = {}): Registries {
    const made = new Registries({ places: this.places, ...options, limits: { ...QUICK, ...options.limits } })
    this.#open.push(made)
    return made
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#open.map((each) => each.close()))
    await rm(this.dir, { recursive: true, force: true })
  }
}

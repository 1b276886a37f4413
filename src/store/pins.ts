// Images whose trees keep all that the cache has of them: a record an image in the cache's folder `pins/`.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, digestOf, hex } from '../image/digest.ts'
import { diskFailure, readWhole, replaceFile } from './durable.ts'
import { decodeRecord, encodeRecord, RECORD_MAX_BYTES } from './record.ts'
import { TEMPORARY } from './version.ts'

/** An image that was pinned. */
export interface Pin {
  reference: string
  trees: readonly Digest[]
}

const FOLDER = 'pins'
const NAME = /^[0-9a-f]{64}\.json$/

export class Pins {
  readonly #cache: string

  /** @param cache directory of an open Store */
  constructor(cache: string) {
    this.#cache = cache
  }

  /** @throws Failure system */
  async add(pin: Pin): Promise<void> {
    await replaceFile(join(this.#cache, TEMPORARY), this.#path(pin.reference), encodeRecord(pin))
  }

  /** @returns whether it was pinned. @throws Failure system */
  async remove(reference: string): Promise<boolean> {
    const path = this.#path(reference)
    try {
      const there = (await fs.stat(path).catch(() => undefined)) !== undefined // it is not
      await fs.rm(path, { force: true })
      return there
    } catch (cause) {
      throw diskFailure(path, cause)
    }
  }

  /** A record that is damaged pins nothing. @throws Failure system */
  async all(): Promise<Pin[]> {
    const folder = join(this.#cache, FOLDER)
    const names = await fs.readdir(folder).catch((cause) => Promise.reject(diskFailure(folder, cause)))
    const pins: Pin[] = []
    for (const name of names.filter((each) => NAME.test(each)).sort()) {
      const bytes = await readWhole(join(folder, name), RECORD_MAX_BYTES)
      const pin = bytes instanceof Uint8Array ? (decodeRecord(bytes) as Pin | undefined) : undefined // as `add` wrote it
      if (pin !== undefined) pins.push(pin)
    }
    return pins
  }

  /** Names of the folders of all trees that are pinned. @throws Failure system */
  async trees(): Promise<ReadonlySet<string>> {
    return new Set((await this.all()).flatMap(({ trees }) => trees.map(hex)))
  }

  #path(reference: string): string {
    return join(this.#cache, FOLDER, `${hex(digestOf(new TextEncoder().encode(reference)))}.json`)
  }
}

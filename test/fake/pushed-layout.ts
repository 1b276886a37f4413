// A layout that is served, and may be pushed to.
import { type Content, layoutShelf } from '../../src/build/registry.ts'
import type { Digest } from '../../src/image/digest.ts'
import { MemoryShelf } from './image.ts'

/** What lies in a layout, and what was pushed beside it. */
export class PushedLayout extends MemoryShelf {
  readonly #layout: ReturnType<typeof layoutShelf>

  constructor(dir: string) {
    super()
    this.#layout = layoutShelf(dir)
  }

  override async manifest(repository: string, version: string): Promise<Content | undefined> {
    return (await super.manifest(repository, version)) ?? (await this.#layout.manifest(repository, version))
  }

  override async blob(repository: string, digest: Digest): Promise<Content | undefined> {
    return (await super.blob(repository, digest)) ?? (await this.#layout.blob(repository, digest))
  }
}

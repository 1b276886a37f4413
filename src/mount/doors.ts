// Several doors in one mount: who is asked for a node of the control tree.
import { Failure } from '../errors.ts'
import type { ControlTree, LateFile } from './session.ts'

/** Answers for its own nodes; what is asked of others never comes to it. */
export interface Door extends ControlTree {
  owns(node: bigint): boolean
}

export class Doors implements ControlTree {
  readonly #doors: Door[] = []
  readonly #opening = new Set<Promise<void>>()

  add(door: Door): void {
    this.#doors.push(door)
  }

  /** Whoever asks for what nobody owns waits for one that is opened, and may show something already. */
  addSoon(door: Promise<Door>): void {
    const opening = door
      .then(
        (open) => this.add(open),
        () => {}, // whoever opens it is told
      )
      .finally(() => this.#opening.delete(opening))
    this.#opening.add(opening)
  }

  async lookup(parent: bigint, name: string, uid: number): Promise<void> {
    await (await this.#ownerOf(parent)).lookup(parent, name, uid)
  }

  async late(node: bigint): Promise<LateFile> {
    return await (await this.#ownerOf(node)).late(node)
  }

  hint(op: 'create' | 'rmdir', parent: bigint, name: string): void {
    this.#find(parent)?.hint(op, parent, name)
  }

  #find(node: bigint): Door | undefined {
    return this.#doors.find((each) => each.owns(node))
  }

  /** @throws Failure missing: it has left */
  async #ownerOf(node: bigint): Promise<Door> {
    const found = this.#find(node)
    if (found !== undefined) return found
    await Promise.all(this.#opening)
    const late = this.#find(node)
    if (late === undefined) throw Failure.missing('it has left')
    return late
  }
}

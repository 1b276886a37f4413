// Answers requests to bring what an image lacks into containerd's content store: when it is there, or when whoever asks has waited long enough.
import { describe, Failure } from '../errors.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import type { FilledImage } from '../snapshotter/fill.ts'
import { type Patience, patiently } from '../stores/patience.ts'
import type { ContainerdDoor } from './containerd-door.ts'
import { type AgentAnswer, type FillRequest, refusal } from './socket.ts'

export interface FillsParts {
  /** Undefined: no containerd is served. */
  door: Pick<ContainerdDoor, 'fill'> | undefined
  progress(): number
  patience: Patience
  log(message: string): void
}

/** Of what is filled at once: nobody types more. */
const FILLS_MAX = 64

/** Makes what answers requests; each image is filled once at a time, whoever asks. */
export function fills({ door, progress, patience, log }: FillsParts): (request: FillRequest) => Promise<AgentAnswer> {
  const running = new Map<string, Promise<FilledImage[]>>()
  return async ({ image, namespace }) => {
    if (door === undefined) {
      const fix = 'Serve one with --containerd: docs/containerd.md.'
      return refusal(Failure.unsupported('no containerd is served here', { fix }))
    }
    const key = `${namespace ?? ''} ${image}`
    let filling = running.get(key)
    if (filling === undefined) {
      if (running.size >= FILLS_MAX) return refusal(Failure.limit(`${FILLS_MAX} images are being filled already`))
      filling = door.fill(namesOf(image), namespace).finally(() => running.delete(key))
      filling.catch((error) => log(`${image}: not brought to containerd: ${describe(error)}`))
      running.set(key, filling)
    }
    try {
      return { ok: true, filled: await patiently(filling, progress, patience) }
    } catch (error) {
      return { ...refusal(error), late: running.has(key) }
    }
  }
}

/** What clients may call it: as it was given, or in full. @throws Failure usage */
function namesOf(image: string): string[] {
  return [...new Set([referenceText(parseReference(image)), image])]
}

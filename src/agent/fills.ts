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

/** Whoever was told that it takes long asks again at once; who went away is not waited for longer. */
const OWED_MS = 60_000

interface Filling {
  /** What came of it; never rejects. */
  answer: Promise<AgentAnswer>
  isOver: boolean
  /** Somebody was told that it takes long, and is to get its outcome: a second filling would say that nothing was missing. */
  isOwed: boolean
}

/** Makes what answers requests; each image is filled once at a time, whoever asks. */
export function fills({ door, progress, patience, log }: FillsParts): (request: FillRequest) => Promise<AgentAnswer> {
  const known = new Map<string, Filling>()

  function begin(key: string, image: string, outcome: Promise<FilledImage[]>): Filling {
    const end = (answer: AgentAnswer) => {
      filling.isOver = true
      if (filling.isOwed) setTimeout(forget, OWED_MS, key, filling).unref()
      else forget(key, filling)
      return answer
    }
    const answer = outcome.then(
      (filled) => end({ ok: true, filled }),
      (error) => {
        log(`${image}: not brought to containerd: ${describe(error)}`)
        return end({ ...refusal(error), late: false })
      },
    )
    const filling: Filling = { answer, isOver: false, isOwed: false }
    known.set(key, filling)
    return filling
  }

  function forget(key: string, filling: Filling): void {
    if (known.get(key) === filling) known.delete(key)
  }

  return async ({ image, namespace }) => {
    if (door === undefined) {
      const fix = 'Serve one with --containerd: docs/containerd.md.'
      return refusal(Failure.unsupported('no containerd is served here', { fix }))
    }
    const key = `${namespace ?? ''} ${image}`
    let filling = known.get(key)
    if (filling === undefined) {
      if (known.size >= FILLS_MAX) return refusal(Failure.limit(`${FILLS_MAX} images are being filled already`))
      filling = begin(key, image, door.fill(namesOf(image), namespace))
    }
    try {
      await patiently(filling.answer, progress, patience)
    } catch (error) {
      if (!filling.isOver) {
        filling.isOwed = true
        return { ...refusal(error), late: true }
      }
    }
    forget(key, filling)
    return await filling.answer
  }
}

/** What clients may call it: as it was given, or in full. @throws Failure usage */
function namesOf(image: string): string[] {
  return [...new Set([referenceText(parseReference(image)), image])]
}

// Answers requests to list an image: when its layers are listed, or failed to be, or when whoever asks has waited long enough.

import { describe, Failure } from '../errors.ts'
import { parseReference, type Reference, type RegistryReference, referenceText } from '../image/reference.ts'
import type { Credentials } from '../registry/login.ts'
import type { AdditionalImageStore } from '../stores/image-store.ts'
import type { ListOutcome } from '../stores/outcome.ts'
import { type Patience, patiently } from '../stores/patience.ts'
import type { Prove } from '../stores/read-whole.ts'
import { type AgentAnswer, type ListRequest, refusal } from './socket.ts'

export interface ListerParts {
  store: Pick<AdditionalImageStore, 'list'>
  /** Keeps what was handed over for the reference's repository. */
  remember(reference: RegistryReference, credentials: Credentials): Promise<void>
  progress(): number
  patience: Patience
  log(message: string): void
}

/** Images that are being listed: more than any node pulls at once, and few enough to be kept in memory. */
const LISTINGS_MAX = 1_000

interface RunningListing {
  done: Promise<ListOutcome>
  isOver: boolean
  /** Whether the log has said that it takes longer than anybody waits. */
  isLate: boolean
  /** Whether a request has joined that brought credentials of its own: if the listing is denied, that request lists the image again. */
  isTriedAgain: boolean
}

/**
 * Makes what answers requests. When a listing takes longer than a request waits, the log says so once, however many requests join it. When
 * a listing fails, the log says that, too, whether or not a request still waits, unless one lists the image again.
 */
export function lister({
  store,
  remember,
  progress,
  patience,
  log,
}: ListerParts): (request: ListRequest) => Promise<AgentAnswer> {
  /** By the reference, and by which layers are read whole. */
  const running = new Map<string, RunningListing>()
  /** What came of the last listing of each reference that read layers whole; `explain` asks for it. */
  const outcomes = new Map<string, ListOutcome>()

  const list = (reference: Reference, prove: Prove | undefined, text: string): RunningListing => {
    const key = `${referenceText(reference)} ${prove}`
    const known = running.get(key)
    if (known !== undefined) return known
    const isFull = running.size >= LISTINGS_MAX
    const done = (isFull ? Promise.reject(tooMany()) : store.list(reference, prove)).finally(() => {
      if (!isFull) running.delete(key)
      listing.isOver = true
    })
    const listing: RunningListing = { done, isOver: false, isLate: false, isTriedAgain: false }
    if (!isFull) running.set(key, listing)
    if (prove === 'needed' || prove === 'all') {
      done.then(
        (outcome) => {
          outcomes.delete(referenceText(reference))
          if (outcomes.size >= LISTINGS_MAX) outcomes.clear()
          outcomes.set(referenceText(reference), outcome)
        },
        () => {}, // told below
      )
    }
    done.catch((error) => {
      if (isCode(error, 'aborted')) return // the agent is being stopped
      if (listing.isTriedAgain && isCode(error, 'denied')) return // the other one is logged if it fails, too
      log(`${text}: its layers are not listed: ${describe(error)}`)
    })
    return listing
  }

  return async ({ reference: text, credentials, prove, known }) => {
    const reference = parseReference(text)
    if (known === true) {
      const outcome = outcomes.get(referenceText(reference))
      return outcome === undefined ? { ok: true } : { ok: true, outcome }
    }
    if (credentials !== undefined && reference.transport === 'docker') await remember(reference, credentials)
    const before = running.size
    let listing = list(reference, prove, text)
    const triesAgain = credentials !== undefined && running.size === before // it was begun without these
    if (triesAgain) listing.isTriedAgain = true
    const done = listing.done.catch(async (error) => {
      if (!triesAgain || !isCode(error, 'denied')) throw error
      listing = list(reference, prove, text)
      return await listing.done
    })
    try {
      return { ok: true, outcome: await patiently(done, progress, patience) }
    } catch (error) {
      const late = isCode(error, 'timeout')
      if (late && !listing.isLate && !listing.isOver) {
        listing.isLate = true
        log(`${text}: its layers are not listed yet: ${describe(error)}`)
      }
      return { ...refusal(error), late }
    }
  }
}

function tooMany(): Failure {
  return Failure.limit(`${LISTINGS_MAX} images are being listed already`, { fix: 'Ask again when some are done.' })
}

function isCode(error: unknown, code: Failure['code']): boolean {
  return error instanceof Failure && error.code === code
}

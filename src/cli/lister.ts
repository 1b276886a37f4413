// Answers requests to list an image: when its layers are listed, or failed to be, or when whoever asks has waited long enough.
import { describe, Failure } from '../errors.ts'
import { parseReference, type RegistryReference } from '../image/reference.ts'
import type { Credentials } from '../registry/credentials.ts'
import type { AdditionalImageStore } from '../stores/ais.ts'
import { type Patience, patiently } from '../stores/patience.ts'
import { type Answer, type ListRequest, refusal } from './socket.ts'

export interface ListerParts {
  store: Pick<AdditionalImageStore, 'list'>
  /** Keeps what was handed over for the reference's repository. */
  remember(reference: RegistryReference, credentials: Credentials): Promise<void>
  progress(): number
  patience: Patience
  log(message: string): void
}

/** Of an image that takes longer, the log says so once, however often it is asked for meanwhile. */
export function lister({
  store,
  remember,
  progress,
  patience,
  log,
}: ListerParts): (request: ListRequest) => Promise<Answer> {
  /** Bounded by what the store lists at once. */
  const late = new Set<string>()
  return async ({ reference: text, credentials, prove }) => {
    const reference = parseReference(text)
    if (credentials !== undefined && reference.transport === 'docker') await remember(reference, credentials)
    const listing = store.list(reference, prove)
    try {
      return { ok: true, outcome: await patiently(listing, progress, patience) }
    } catch (error) {
      const isLate = error instanceof Failure && error.code === 'timeout'
      if (!isLate || !late.has(text)) {
        log(`${text}: its layers are not listed${isLate ? ' yet' : ''}: ${describe(error)}`)
      }
      if (isLate && !late.has(text)) {
        late.add(text)
        const ended = () => late.delete(text)
        listing.then(ended, ended)
      }
      return { ...refusal(error), late: isLate }
    }
  }
}

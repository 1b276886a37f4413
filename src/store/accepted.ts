// Which images a policy accepted the signatures of: a record each in the cache's folder `accepted/`, and its twin.
import { join } from 'node:path'
import { type Digest, digestOf, hex } from '../image/digest.ts'
import { type Is, says } from './twins.ts'

/** An image whose signature a policy accepted. */
export interface Accepted {
  reference: string
  manifest: Digest
  policy: Digest
}

/** Of the record that says so. */
export function acceptedName({ reference, manifest, policy }: Accepted): string {
  return join('accepted', `${hex(digestOf(new TextEncoder().encode(`${reference} ${manifest} ${policy}`)))}.json`)
}

export function isAccepted(accepted: Accepted): Is<Accepted> {
  return (record): record is Accepted => says(record, { ...accepted })
}

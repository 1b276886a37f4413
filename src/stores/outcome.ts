// What became of an image that was to be listed: for who asked, and for the next process. Pure.
import type { Digest } from '../image/digest.ts'
import { referenceText } from '../image/reference.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { Identity } from './chain.ts'
import type { ListedImage } from './image-chain.ts'
import type { Owner } from './layer-owners.ts'

/** What became of an image's layers, lowest first. */
export interface ListOutcome {
  listed: readonly { digest: Digest; id: string; by: Identity['by'] }[]
  /** Those that engines pull themselves: the chain ends at the first that cannot be listed. */
  left: readonly Digest[]
  /** Why it ends. */
  why?: string
}

/** Is told of layers that engines fetch themselves: says each message once. */
export interface Leaving {
  leave(message: string, layers: number, why: unknown): void
}

/** What is kept of an image. @param before as it was kept in an earlier life, which it stays */
export function listedAs(
  { reference, digest }: ResolvedImage,
  owners: readonly Owner[],
  before?: ListedImage,
): ListedImage {
  const by = before?.by ?? owners.map(({ link: { identity } }) => identity.by)
  const proven = by.map((_, i) => before?.proven?.[i] === true || owners[i]?.link.proven === true)
  return {
    reference: referenceText(reference),
    manifest: digest,
    by,
    ...(proven.includes(true) ? { proven } : {}),
    ...(before?.askedAt === undefined ? {} : { askedAt: before.askedAt }),
  }
}

export function outcomeOf(
  { manifest: { layers } }: ResolvedImage,
  owners: readonly Owner[],
  why: string | undefined,
): ListOutcome {
  const listed = owners.map(({ link: { id, identity } }, i) => {
    return { digest: layers[i]?.digest as Digest, id, by: identity.by } // a link a layer
  })
  const left = layers.slice(owners.length).map(({ digest }) => digest)
  return { listed, left, ...(why === undefined ? {} : { why }) }
}

/** What was proven of it since does not make it another. */
export function keyOf({ reference, manifest, by }: ListedImage): string {
  return JSON.stringify([reference, manifest, by])
}

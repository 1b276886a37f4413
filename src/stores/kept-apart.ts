// Opens images of the image store apart from others: what another image says otherwise of a layer is settled before the layer gets a name.
import { referenceText } from '../image/reference.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { Guard, Met } from './guard.ts'
import { type Chain, type ChainOpening, type ChainParts, closeChain, openChain } from './image-chain.ts'
import { isSame, type NameClaim, nameClaimsOf } from './name-claim.ts'

export interface ApartParts extends Pick<ChainParts, 'layers' | 'trustsDiffIds'> {
  guard: Pick<Guard, 'meet'>
}

/** Of those that wait for a proof the latest; the others are listed when they are asked for again. */
const WAITING_MAX = 1_000

export class KeptApart {
  readonly #parts: ApartParts
  /** By their references: images that are not listed as far as they may be once these of their layers are proven. */
  readonly #waiting = new Map<string, { image: ResolvedImage; left: readonly NameClaim[] }>()

  constructor(parts: ApartParts) {
    this.#parts = parts
  }

  /** As openChain; what of it is contested is believed no more. @throws what asking whether it is believed throws */
  async open(image: ResolvedImage, opening: ChainOpening, prove: Parameters<typeof openChain>[2]): Promise<Chain> {
    const opened = openChain(image, opening, prove) // never rejects
    const { isNews, left } = await this.#meet(image, opened)
    const chain = await opened
    if (this.#waiting.size >= WAITING_MAX) this.#waiting.clear()
    if (left.length > 0) this.#waiting.set(referenceText(image.reference), { image, left })
    if (!isNews) return chain
    await closeChain(chain)
    return await openChain(image, opening, prove)
  }

  /** As Guard.meet, of an image that was opened as far as it could be. */
  meet(chain: Chain): Promise<Met> {
    return this.#meet(chain.image, Promise.resolve(chain))
  }

  async #meet(image: ResolvedImage, opened: Promise<Chain>): Promise<Met> {
    const { guard, layers, trustsDiffIds } = this.#parts
    const plan = layers.plan(image.manifest)
    return await guard.meet({
      image,
      said: nameClaimsOf(image, plan, []),
      claims: async () => nameClaimsOf(image, plan, (await opened).links),
      isBelieved: async () => (await trustsDiffIds(image)) === true,
    })
  }

  /** @returns images that waited for this layer's proof */
  proven(claim: NameClaim): ResolvedImage[] {
    const ready = [...this.#waiting].filter(([, { left }]) => left.some((each) => isSame(each, claim)))
    for (const [reference] of ready) this.#waiting.delete(reference)
    return ready.map(([, { image }]) => image)
  }
}

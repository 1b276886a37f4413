// A layer that shows nothing where several layers show one tree together.
import type { Digest } from './digest.ts'

/** What the index of such a tree says of one of them. */
export interface Part {
  readonly digest: Digest
  /** The name in the tar header that its last 512 bytes are; undefined: it may end in anything. */
  readonly ends?: string
}

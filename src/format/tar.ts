// A layer's own tar, uncompressed, as the blob that its files are read from: how a layer is served that was fetched whole.
//
// No layer is of this format by its manifest, and none has such an index until its tar was read (tar-scan.ts).
import { Failure } from '../errors.ts'
import type { Contents, Format, Layer } from './format.ts'
import { parseTarIndex } from './tar-index.ts'

const nameOf = (layer: Layer) => `layer ${layer.descriptor.digest}`

function noIndex(layer: Layer): Failure {
  return Failure.unsupported(`${nameOf(layer)}: a plain tar has no index`)
}

export const tar: Format = {
  name: 'tar',
  detect: () => 'a plain tar has no index',
  indexDigest(layer) {
    throw noIndex(layer)
  },
  tarSize: () => undefined,
  async readIndex(layer) {
    throw noIndex(layer)
  },
  parseIndex,
}

/** The blob is the uncompressed tar, known by the DiffID; each chunk is a piece of one file. */
function parseIndex(index: Uint8Array, layer: Layer): Contents {
  const { diffId, tarSize, entries, chunks } = parseTarIndex(index, nameOf(layer))
  return { blobs: [{ digest: diffId, size: tarSize }], chunks, entries, first: [] }
}

// nydus: an image whose layers are blobs of chunks, and a last layer, a tar.gz, that has the tree of the whole image: the bootstrap, in the
// format RAFS (dragonflyoss/nydus). One tree, over all of these layers.
//
//   layers    │ blob │ blob │ … │ tar.gz: image/image.boot, image/<hex>.blob.meta … │ ordinary layers, built on the image
//   a blob    │ chunks │ its tables │ …        or only tables (zran): the chunks are those of an ordinary gzip layer
//
// All that is trusted is the bootstrap layer, whose digest is the manifest's: a chunk's digest stands in it, or in a table whose digest
// stands in it. Tables that nobody vouches for say no more than where a chunk is.
import { Failure } from '../../errors.ts'
import { isDigest } from '../../image/digest.ts'
import type { Descriptor } from '../../image/manifest.ts'
import {
  type Contents,
  type Format,
  type IndexOptions,
  type Planned,
  type Refused,
  type Source,
  type Unit,
  unitText,
} from '../format.ts'
import { giveBack } from '../memory.ts'
import { readLayer } from './bootstrap-layer.ts'
import { contentsOf } from './contents.ts'
import { packIndex, unpackIndex } from './nydus-index.ts'
import { partsOf } from './parts.ts'
import type { Rafs } from './rafs.ts'
import { parseRafs5 } from './v5/rafs5.ts'
import { isRafs5 } from './v5/superblock.ts'
import { parseRafs6 } from './v6/rafs6.ts'
import { isRafs6 } from './v6/superblock.ts'
import { readTables } from './wanted-tables.ts'

const BLOB_TYPE = 'application/vnd.oci.image.layer.nydus.blob.v1'
const BOOTSTRAP_TYPES: readonly string[] = [
  'application/vnd.oci.image.layer.v1.tar+gzip',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
]
/** What media types of layers end with that only holders of a key can read (ocicrypt). */
const ENCRYPTED = '+encrypted'
const BOOTSTRAP = 'containerd.io/snapshot/nydus-bootstrap'
/** Of RAFS: tools write it beside the mark, and it is not believed. */
const VERSION = 'containerd.io/snapshot/nydus-fs-version'
/** The gzip layer whose chunks a blob of tables is about. */
const REFERS_TO = 'containerd.io/snapshot/nydus-ref'

/** Its bootstrap tells nothing unparsed. */
const firstBytes = () => undefined

export const nydus: Format = { name: 'nydus', plan, readIndex, firstBytes, parseIndex }

/** Only the media type makes a blob, since engines would unpack any other; the bootstrap is the layer above them, which tools may not mark. */
function plan({ layers }: Planned): readonly (Unit | Refused | string)[] {
  const isBlob = ({ mediaType }: Descriptor) => mediaType === BLOB_TYPE
  const isBootstrap = ({ annotations }: Descriptor) => annotations[BOOTSTRAP] === 'true'
  const marked = layers.findIndex(isBootstrap)
  const all = layers.filter(isBlob)
  const refused = (why: string) =>
    layers.map((each) =>
      isBlob(each) || isBootstrap(each) ? { refused: `its nydus image cannot be served: ${why}` } : '',
    )
  if (all.length === 0) return refused('the manifest has no nydus blobs, which are kept outside the registry then')
  const top = layers.findIndex((each) => !isBlob(each))
  const shown = layers[top]
  if (shown === undefined) return refused('no layer with a bootstrap is above its blobs')
  if (top !== all.length || (marked >= 0 && marked !== top)) {
    return refused('an ordinary layer is below its bootstrap')
  }
  if (layers.filter(isBootstrap).length > 1) return refused('it has two bootstraps')
  if (shown.mediaType.endsWith(ENCRYPTED)) return refused('its bootstrap is encrypted')
  if (!BOOTSTRAP_TYPES.includes(shown.mediaType)) {
    return refused(
      `the layer above its blobs has the media type ${JSON.stringify(shown.mediaType)}, bootstraps are tar+gzip`,
    )
  }
  const blobs = all.map(({ digest, size }) => ({ digest, size }))
  const others = all.flatMap(({ annotations }) => annotations[REFERS_TO] ?? []).filter(isDigest)
  const version = shown.annotations[VERSION]
  const unit: Unit = {
    format: nydus.name,
    layers: layers.slice(0, top + 1),
    shown,
    index: shown.digest,
    identity: undefined,
    blobs: [...blobs, ...others.map((digest) => ({ digest }))],
    borrows: true,
    tarSize: undefined,
    ...(version === '5' || version === '6' ? { version: `RAFS v${version}` } : {}),
  }
  return layers.map((_, i) => (i <= top ? unit : ''))
}

async function readIndex(unit: Unit, source: Source, options: IndexOptions = {}): Promise<Uint8Array> {
  const layer = await readLayer(unit, source.blob(unit.shown), options)
  try {
    const tables = await readTables(layer, unit, source, options)
    return packIndex({ bootstrap: layer.bootstrap, tables })
  } finally {
    giveBack(layer.bootstrap) // with the tar that it lies in
  }
}

function parseIndex(index: Uint8Array, unit: Unit): Contents {
  const what = unitText(unit)
  const { bootstrap, tables } = unpackIndex(index, what)
  const rafs = parseRafs(bootstrap, `${what}: bootstrap`)
  const parts = partsOf(rafs)
  return { ...contentsOf(rafs, tables, unit), ...(parts === undefined ? {} : { parts }) }
}

/** By the magic number. */
function parseRafs(bootstrap: Uint8Array, what: string): Rafs {
  if (isRafs6(bootstrap)) return parseRafs6(bootstrap, what)
  if (isRafs5(bootstrap)) return parseRafs5(bootstrap, what)
  throw Failure.unsupported(`${what}: it is of no known version`, { why: 'RAFS v5 and v6 are read' })
}

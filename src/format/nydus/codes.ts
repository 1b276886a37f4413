// The numbers and flags that both versions of RAFS and the tables of their blobs use, and which of them are refused.
import { Failure } from '../../errors.ts'
import type { Compressor, Digester } from './rafs.ts'

const COMPRESSORS: readonly Compressor[] = ['none', 'lz4_block', 'gzip', 'zstd']
const DIGESTERS: readonly Digester[] = ['blake3', 'sha256']

/** RafsSuperFlags. */
export const SUPER = {
  none: 0x1,
  lz4: 0x2,
  blake3: 0x4,
  sha256: 0x8,
  explicitIds: 0x10,
  xattrs: 0x20,
  gzip: 0x40,
  zstd: 0x80,
  inlinedDigests: 0x100,
  tarfs: 0x200,
  plain: 0x0100_0000,
  encrypted: 0x0200_0000,
} as const
/** And those that are reserved for what readers need not know. */
const KNOWN = BigInt(Object.values(SUPER).reduce((all, each) => all + each, 0)) | 0xfc00_0000n

/** BlobFeatures. */
export const FEATURE = {
  aligned: 0x1,
  inlinedMeta: 0x2,
  recordsV2: 0x4,
  zran: 0x8,
  separate: 0x10,
  inlinedDigests: 0x20,
  tarfs: 0x40,
  batch: 0x80,
  encrypted: 0x100,
  external: 0x800,
  tarHeader: 0x1000_0000,
  toc: 0x2000_0000,
} as const
/** What is above bit 15 may be unknown. */
const FEATURES_UNKNOWN = 0xf000

/** @param what names the bootstrap @throws Failure unsupported */
export function compressorNumbered(number: number, what: string): Compressor {
  const found = COMPRESSORS[number]
  if (found === undefined) throw Failure.unsupported(`${what}: compressor ${number} is not known, 0 to 3 are`)
  return found
}

/** @param what names the bootstrap @throws Failure unsupported */
export function digesterNumbered(number: number, what: string): Digester {
  const found = DIGESTERS[number]
  if (found === undefined) throw Failure.unsupported(`${what}: digest algorithm ${number} is not known, 0 and 1 are`)
  return found
}

/** @param flags of a superblock, all 64 bits @throws Failure unsupported: what no reader could serve, or none could verify */
export function checkFlags(flags: bigint, what: string): void {
  const low = Number(flags & 0xffff_ffffn)
  if (low & SUPER.encrypted) throw encrypted(what)
  if (low & SUPER.tarfs) throw unsupported(what, 'its files are those of tars (tarfs), of which no digest is known')
  const unknown = flags & ~KNOWN
  if (unknown)
    throw Failure.unsupported(`${what}: the superblock has flags that are not known: 0x${unknown.toString(16)}`)
}

/** @param what names the blob @throws Failure unsupported, with the reason */
export function checkFeatures(features: number, what: string): void {
  if (features & FEATURE.encrypted) throw encrypted(what)
  if (features & FEATURE.tarfs)
    throw unsupported(what, 'its files are those of a tar (tarfs), of which no digest is known')
  if (features & FEATURE.external)
    throw unsupported(what, 'its chunks are kept outside the registry (an external backend)')
  if (features & FEATURE.separate && !(features & FEATURE.zran)) {
    throw unsupported(
      what,
      'it refers to the files of an uncompressed tar or of an eStargz layer (tar-ref, estargz-ref)',
    )
  }
  if (features & FEATURES_UNKNOWN) {
    throw unsupported(what, `it has features that are not known: 0x${(features & FEATURES_UNKNOWN).toString(16)}`)
  }
}

export function encrypted(what: string): Failure {
  return unsupported(what, 'it is encrypted')
}

function unsupported(what: string, why: string): Failure {
  return Failure.unsupported(`${what}: this kind of nydus image is not served`, {
    why,
    fix: 'Convert the image again without that option, for example with nydusify convert.',
  })
}

/** As Linux packs a device's number (`new_encode_dev`); writers leave anything where an inode is none. */
export function deviceOf(packed: number): readonly [number, number] {
  return [(packed >>> 8) & 0xfff, (packed & 0xff) | ((packed >>> 12) & 0xfff00)]
}

// Pushing a document that refers to an image into the image's repository (distribution specification, "Pushing Manifests with Subject").
import { addReferrer, EMPTY_BYTES, referrersTag, type Subject, writeArtifact } from '../image/artifact.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import { MANIFEST_MAX_BYTES, OCI_INDEX } from '../image/manifest.ts'
import type { RegistryTarget } from './target.ts'

export interface PushedReferrer {
  type: string
  document: Uint8Array
  subject: Subject
  /** Of the document: milliseconds since 1970. */
  created: number
}

/**
 * Where the registry does not list referrers, the list under the subject's tag is brought up to date. Two who do that at once may lose one of
 * theirs, as the specification says.
 * @param tagged what the repository has under a tag, if anything
 * @returns the artifact's digest
 * @throws Failure as RegistryTarget, or what `tagged` throws
 */
export async function pushReferrer(
  target: Pick<RegistryTarget, 'pushBlob' | 'pushManifest' | 'pushReferrer'>,
  tagged: (tag: string, maxBytes: number, signal: AbortSignal) => Promise<Uint8Array | undefined>,
  { type, document, subject, created }: PushedReferrer,
  signal: AbortSignal,
): Promise<Digest> {
  for (const bytes of [EMPTY_BYTES, document]) {
    const open = async function* (start: number) {
      yield bytes.subarray(start)
    }
    await target.pushBlob({ digest: digestOf(bytes), size: bytes.length, open }, { signal })
  }
  const manifest = writeArtifact(type, document, subject, created)
  if (!(await target.pushReferrer(manifest, subject.digest, { signal }))) {
    const tag = referrersTag(subject.digest)
    const list = addReferrer(await tagged(tag, MANIFEST_MAX_BYTES, signal), manifest, `the list ${tag}`)
    await target.pushManifest(list, OCI_INDEX, { tag, signal })
  }
  return digestOf(manifest)
}

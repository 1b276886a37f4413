// Artifacts that refer to images, and lists of them.
import { parseArtifact, parseReferrers, writeArtifact } from '../../../src/image/artifact.ts'
import { digestOf } from '../../../src/image/digest.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'

const TYPE = 'application/vnd.example.note.v1+json'
const subject = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digestOf(Uint8Array.of(1)), size: 1 }
const artifact = writeArtifact(TYPE, new TextEncoder().encode('{}'), subject, 1_700_000_000_000)
const listed = { ...subject, artifactType: TYPE, annotations: { 'org.opencontainers.image.created': '2023-11-14' } }
const list = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [listed, subject] }

export const artifacts: readonly Target[] = [
  {
    name: 'artifact',
    seeds: [artifact],
    run: (bytes) => attempt(() => parseArtifact(bytes, TYPE, subject.digest, 'artifact')),
  },
  {
    name: 'referrers',
    seeds: [new TextEncoder().encode(JSON.stringify(list))],
    run: (bytes) => attempt(() => parseReferrers(bytes, TYPE, 'list')),
  },
]

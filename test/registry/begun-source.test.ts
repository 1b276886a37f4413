import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Digest } from '../../src/image/digest.ts'
import { hostPlatform, type Manifest } from '../../src/image/manifest.ts'
import { BegunSource } from '../../src/registry/begun-source.ts'
import type { Image, ResolveOptions } from '../../src/registry/manifests.ts'
import type { ImageSource } from '../../src/registry/source.ts'

const DIGEST: Digest = `sha256:${'0'.repeat(64)}`
const MANIFEST: Manifest = {
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 2, annotations: {} },
  layers: [],
}

/** A source that answers when it is told to. */
function source() {
  const asked: (ResolveOptions & { answer: () => void; fail: (error: unknown) => void })[] = []
  const it: Pick<ImageSource, 'resolve'> = {
    resolve: (_, options = {}) =>
      new Promise<Image>((resolve, reject) => {
        const image = { digest: DIGEST, manifest: MANIFEST } as Image // all that is looked at
        asked.push({ ...options, answer: () => resolve(image), fail: reject })
      }),
  }
  return { asked, begun: new BegunSource(it as ImageSource, hostPlatform(), async () => undefined) }
}

test('who resolves an image that was asked for already waits for that answer, and is told of its manifest as soon as that is here', async () => {
  const { asked, begun } = source()
  asked[0]?.onManifest?.(MANIFEST, DIGEST)
  const told: Digest[] = []
  const image = begun.resolve(hostPlatform(), { onManifest: (_, digest) => void told.push(digest) })
  await new Promise(setImmediate)
  expect(told).toEqual([DIGEST])
  asked[0]?.answer()
  expect(await image).toMatchObject({ digest: DIGEST })
  expect(asked).toHaveLength(1)
})

test('who resolves it again asks again, also after a failure, which nobody else hears of', async () => {
  const { asked, begun } = source()
  asked[0]?.fail(Failure.unavailable('not now'))
  await begun.ended
  await expect(begun.resolve(hostPlatform())).rejects.toMatchObject({ code: 'unavailable' })
  const again = begun.resolve(hostPlatform())
  expect(asked).toHaveLength(2)
  asked[1]?.answer()
  expect(await again).toMatchObject({ digest: DIGEST })
})

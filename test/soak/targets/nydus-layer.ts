// The tar of a nydus image's bootstrap layer.
import { filesIn } from '../../../src/format/nydus/bootstrap-layer.ts'
import { archive, GNU, member, pax } from '../../format/tar/tar-craft.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'

const TABLE = `${'ab'.repeat(32)}.blob.meta`

export const nydusLayer: Target = {
  name: 'nydus-layer',
  seeds: [
    archive(
      member({ name: 'image', type: '5' }),
      member({ name: 'image/image.boot' }, 'bootstrap'.repeat(100)),
      member({ name: `image/${TABLE}` }, 'table'),
    ),
    archive(
      pax([['path', `image/${TABLE}`]]),
      member({ name: 'short', magic: GNU }, 'table'),
      member({ name: 'image/image.boot', magic: GNU }, 'boot'),
    ),
  ],
  run: (bytes) => attempt(() => filesIn(bytes, 'layer')),
}

// One small image a way of being lazy, each of which prints by what it is: in zstd:chunked, of nydus, and with an ordinary layer at the bottom.
import { writeImage } from '../../src/build/layout-writer.ts'
import { withPrograms } from './app-image.ts'
import { nydusLayers, writeLayers } from './nydus-image.ts'
import { zstdLayer } from './zstd-layer.ts'

/** By their tags: what each prints. */
export const FORMAT_IMAGES = { mixed: 'lazy above plain\n', zstd: 'from zstd\n', nydus: 'from nydus\n' } as const
export const FORMAT_TAGS = Object.keys(FORMAT_IMAGES) as (keyof typeof FORMAT_IMAGES)[]

export async function writeFormatImages(layout: string): Promise<readonly string[]> {
  const base = await withPrograms(['sh', 'cat'])
  const who = (tag: keyof typeof FORMAT_IMAGES) => ({
    path: 'etc/who',
    type: 'file' as const,
    content: Buffer.from(FORMAT_IMAGES[tag]),
  })
  const config = { Cmd: ['/bin/cat', '/etc/who'], Env: ['PATH=/bin'] }
  const layers = [
    { kind: 'gzip' as const, entries: base },
    { kind: 'estargz' as const, entries: [who('mixed')] },
  ]
  await writeImage({ dir: layout, tag: 'mixed', config, layers })
  await writeLayers(layout, 'zstd', [await zstdLayer([...base, who('zstd')])], { config })
  await writeLayers(layout, 'nydus', await nydusLayers([...base, who('nydus')]), { config })
  return FORMAT_TAGS
}

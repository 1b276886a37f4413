// A zstd:chunked layer as containers/storage writes it, of entries as other layers are made of.
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { digestOf } from '../../src/image/digest.ts'
import { type Item, item } from '../format/estargz/stargz-craft.ts'
import { header } from '../format/tar/tar-craft.ts'
import { craft } from '../format/zstd-chunked/zstd-craft.ts'
import { contentOf, type MadeLayer } from './nydus-image.ts'

/** Files and directories, of root. */
export async function zstdLayer(entries: readonly SourceEntry[]): Promise<MadeLayer> {
  const { descriptor, blob, tar } = craft(await Promise.all(entries.map(itemOf)), { chunkSize: 1 << 20 })
  return { descriptor, bytes: blob, diffId: digestOf(tar) }
}

async function itemOf(entry: SourceEntry): Promise<Item> {
  const isDir = entry.type === 'dir'
  const { mode = isDir ? 0o755 : 0o644 } = entry
  const name = isDir ? `${entry.path}/` : entry.path
  const contents = await contentOf(entry)
  const block = { name, type: isDir ? '5' : '0', mode: mode.toString(8).padStart(7, '0'), mtime: '00000000000' }
  return item({ name, type: isDir ? 'dir' : 'reg', mode }, contents, header({ ...block, size: contents.length }))
}

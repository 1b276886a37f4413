// eStargz blobs as Go's writers make them, member by member: stargz's appends its table to the entries, BuildKit's to a whole tar.
import { gzipSync } from 'node:zlib'
import { endOfArchive, padding } from '../../../src/build/tar.ts'
import { TOC_DIGEST } from '../../../src/format/estargz/estargz.ts'
import { makeFooter } from '../../../src/format/estargz/footer.ts'
import { digestOf } from '../../../src/image/digest.ts'
import type { Descriptor } from '../../../src/image/manifest.ts'
import { tocTar } from '../craft.ts'
import { header } from '../tar/tar-craft.ts'

/** An entry of the tar, and what the table says of it. */
export interface Item {
  /** Its headers. */
  headers: Uint8Array
  contents: Uint8Array
  toc: Record<string, unknown>
}

export function item(toc: Record<string, unknown>, contents: string | Uint8Array = '', headers?: Uint8Array): Item {
  const bytes = new Uint8Array(Buffer.from(contents as string))
  const types: Record<string, string> = { reg: '0', hardlink: '1', symlink: '2', dir: '5', fifo: '6' }
  const of = {
    name: `${toc.name}`,
    type: types[`${toc.type ?? 'reg'}`] ?? '',
    mode: '0000644',
    mtime: '00000000000',
    linkName: `${toc.linkName ?? ''}`,
    size: bytes.length,
  }
  const size = bytes.length > 0 ? { size: bytes.length } : {}
  return { headers: headers ?? header(of), contents: bytes, toc: { type: 'reg', mode: 0o644, ...size, ...toc } }
}

export interface StargzOptions {
  /** Whether the tar ends before the table, as BuildKit has it. */
  ended: boolean
  chunkSize?: number
  /** Members of less than so many bytes of contents are shared. */
  minChunkSize?: number
  /** Instead of the table's entries. */
  entries?: unknown
  /** Instead of what the tar ends with before the table. */
  end?: Uint8Array
  /** U+FFFD is written as Go's encoder writes it for what is no UTF-8. */
  escaped?: boolean
  /** Headers behind the last contents get a member of their own. */
  apart?: boolean
}

export interface Stargz {
  blob: Uint8Array
  descriptor: Descriptor
}

export function stargz(items: readonly Item[], options: StargzOptions): Stargz {
  const { ended, chunkSize = 4 << 20, minChunkSize = 0, apart = false } = options
  const members: Buffer[] = []
  let size = 0
  let open: Uint8Array[] = []
  let inner = 0 // bytes in the open member
  let begun = 0 // where it begins
  let shared = false
  const close = () => {
    if (open.length > 0) members.push(gzipSync(Buffer.concat(open)))
    size = members.reduce((sum, { length }) => sum + length, 0)
    begun = size
    open = []
    inner = 0
    shared = false
  }
  const put = (bytes: Uint8Array) => {
    if (bytes.length > 0) open.push(bytes)
    inner += bytes.length
  }
  const entries: Record<string, unknown>[] = []
  for (const [i, { headers, contents, toc }] of items.entries()) {
    const isBehind = apart && items.slice(i).every((each) => each.contents.length === 0)
    if (isBehind && items[i - 1]?.contents.length) close()
    put(headers)
    if (contents.length === 0) entries.push(toc)
    for (let at = 0; at < contents.length; at += chunkSize) {
      const chunk = contents.subarray(at, at + chunkSize)
      if (!(shared && inner < minChunkSize)) close()
      shared = true
      entries.push({
        ...(at === 0 ? toc : { name: toc.name, type: 'chunk', chunkOffset: at }),
        ...(chunk.length < contents.length - at ? { chunkSize: chunk.length } : {}),
        offset: begun,
        ...(inner > 0 ? { innerOffset: inner } : {}),
        chunkDigest: digestOf(chunk),
      })
      put(chunk)
    }
    put(padding(contents.length))
  }
  put(options.end ?? (ended ? endOfArchive() : new Uint8Array()))
  close()
  const text = JSON.stringify({ version: 1, entries: 'entries' in options ? options.entries : entries }, null, '\t')
  const json = Buffer.from(options.escaped ? text.replaceAll('\ufffd', '\\ufffd') : text)
  const blob = Buffer.concat([...members, gzipSync(tocTar(json)), makeFooter(size)])
  return {
    blob,
    descriptor: {
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: digestOf(blob),
      size: blob.length,
      annotations: { [TOC_DIGEST]: digestOf(json) },
    },
  }
}

// A blob of which some was read before: what comes of that is taken from a file, and only the rest from its registry.
import type { Range } from '../image/blob.ts'
import { FileBlob } from '../layer/file-blob.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Gathered } from '../store/gathered-blobs.ts'

/** In memory at once. */
const PART_MAX_BYTES = 4 << 20
/** What lies between two pieces that are missing, and is so small, is fetched with them: a request has as many bytes of its own. */
const JOIN_MAX_BYTES = 4 << 10

export function withGathered(blob: StoredBlob, { file, missing }: Pick<Gathered, 'file' | 'missing'>): StoredBlob {
  const { digest, size, origin } = blob
  const local = new FileBlob(blob, file)
  return {
    digest,
    size,
    origin,
    read: (range, options) => blob.read(range, options),
    async stream(take, { signal } = {}) {
      const options = { priority: 'background' as const, ...(signal === undefined ? {} : { signal }) }
      const copy = async (from: typeof local | StoredBlob, { start, end }: Range) => {
        for (let at = start; at < end; at += PART_MAX_BYTES) {
          signal?.throwIfAborted()
          await take(await from.read({ start: at, end: Math.min(end, at + PART_MAX_BYTES) }, options))
        }
      }
      let at = 0
      for (const gap of joined(missing)) {
        await copy(local, { start: at, end: gap.start })
        await copy(blob, gap)
        at = gap.end
      }
      await copy(local, { start: at, end: size })
    },
  }
}

/** @param ranges in order */
function joined(ranges: readonly Range[]): Range[] {
  const all: Range[] = []
  for (const { start, end } of ranges) {
    const last = all.at(-1)
    if (last !== undefined && start - last.end <= JOIN_MAX_BYTES) last.end = end
    else all.push({ start, end })
  }
  return all
}

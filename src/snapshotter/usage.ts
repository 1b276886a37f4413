// What a directory takes on disk, as `du` has it: without what lies below other mounts, and a file with several names once.
import { lstat, opendir } from 'node:fs/promises'
import { join } from 'node:path'

export interface Usage {
  bytes: number
  inodes: number
}

/** stat(2): of st_blocks. */
const BLOCK_BYTES = 512
/** Of a directory that takes longer, what was seen by then is told. */
const MEASURE_MS = 5_000

/** What is gone meanwhile does not count. */
export async function measure(directory: string): Promise<Usage> {
  const until = performance.now() + MEASURE_MS
  const usage = { bytes: 0, inodes: 0 }
  const top = await lstat(directory).catch(() => undefined) // it was removed
  if (top === undefined) return usage
  const seen = new Set<string>()
  const directories = [directory]
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    const entries = await opendir(next).catch(() => undefined)
    if (entries === undefined) continue
    for await (const entry of entries) {
      if (performance.now() > until) return usage // the loop closes it
      const path = join(next, entry.name)
      const found = await lstat(path).catch(() => undefined)
      if (found === undefined || found.dev !== top.dev) continue
      if (found.isDirectory()) directories.push(path)
      else if (found.nlink > 1 && !isNew(seen, String(found.ino))) continue
      usage.inodes++
      usage.bytes += found.blocks * BLOCK_BYTES
    }
  }
  return usage
}

function isNew(seen: Set<string>, one: string): boolean {
  const { size } = seen
  return seen.add(one).size > size
}

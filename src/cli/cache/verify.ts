// Hashes all contents of the cache, and drops what is wrong.

import { log } from '../../agent/log.ts'
import { CodecPool } from '../../codec/pool.ts'
import { keptTrees } from '../../store/contents.ts'
import type { Device } from '../../store/device.ts'
import type { Store } from '../../store/store.ts'
import type { ChunkTable } from '../../tree/chunk-table.ts'
import { READY_MISSING } from '../../tree/ready.ts'

export interface Verified {
  checked: number
  damaged: number
  /** Chunks of which too little is kept to tell. */
  unknown: number
}

/** What two workers have before them. */
const AT_ONCE = 32

/** @param tell is given a line for each tree that has damage. @throws Failure system, timeout */
export async function verifyTrees(store: Store, tell: (line: string) => void): Promise<Verified> {
  const codecs = new CodecPool({ warn: log })
  const all: Verified = { checked: 0, damaged: 0, unknown: 0 }
  try {
    for await (const { tree, chunks } of keptTrees(store)) {
      const device = await store.openSlots(tree, chunks)
      try {
        const found = await verifyDevice(device, chunks, codecs)
        all.checked += found.checked
        all.unknown += found.unknown
        all.damaged += found.damaged.length
        if (found.damaged.length === 0) continue
        const gone = (await device.takeBackChunks(found.damaged)) > 0
        tell(
          `${tree}: ${found.damaged.length} of ${found.checked} chunks are damaged${gone ? '' : '; they stay until nobody uses them'}`,
        )
      } finally {
        await device.close()
      }
    }
    return all
  } finally {
    await codecs.close()
  }
}

async function verifyDevice(device: Device, chunks: ChunkTable, codecs: CodecPool) {
  const states = await device.states()
  const present = [...states.keys()].filter((chunk) => states[chunk] !== READY_MISSING)
  const found = { checked: present.length, damaged: [] as number[], unknown: 0 }
  const turn = { priority: 'prefetch' as const, signal: new AbortController().signal, onUrgent: () => {} }
  for (let at = 0; at < present.length; at += AT_ONCE) {
    const some = present.slice(at, at + AT_ONCE)
    const verdicts = await Promise.all(
      some.map((chunk) => device.check(chunk, (slot) => codecs.verify(chunks.get(chunk), slot, turn))),
    )
    for (const [i, verdict] of verdicts.entries()) {
      if (verdict === 'damaged') found.damaged.push(some[i] as number) // one each
      if (verdict === 'unknown') found.unknown++
    }
  }
  return found
}

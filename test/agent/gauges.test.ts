import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { gaugesOf, type Measured, totalsOf } from '../../src/agent/gauges.ts'

const MEASURED: Measured = {
  native: { served: 1n, reads: 2n, missed: 3n, lookups: 4n, expired: 5n, failed: 6n, refused: 7n },
  registries: {
    requests: 8,
    fetched: 9,
    retries: 10,
    redirects: 11,
    tokens: 12,
    connections: 13,
    hedges: 14,
    outages: 15,
    failedAtOnce: 16,
  },
  codecs: { decoded: 17, verified: 18, copied: 32, corrupt: 19, reverified: 20 },
  layers: 21,
  outagesNow: 22,
  cache: { bytes: 23, aside: 24 },
  corruptImages: 25,
  corruptRecords: 26,
  quarantined: 27,
  believed: 31,
  cacheFreed: 28,
  inMemory: 29,
  mountsEvicted: 30,
  background: { layers: 194, left: 195, came: 196 },
  chunksProfiled: 92,
  startsWatched: 93,
}

test('each number has a name of its own, and is told of what was measured', () => {
  const gauges = gaugesOf(MEASURED)
  expect(new Set(gauges.map(({ name }) => name)).size).toBe(gauges.length)
  expect(new Set(gauges.map(({ value }) => value)).size).toBe(gauges.length) // none is told as another
  expect(gauges).toContainEqual({ name: 'hedges', kind: 'counter', unit: 'requests', value: 14 })
  expect(gauges).toContainEqual({ name: 'cache_in_memory', kind: 'gauge', unit: 'bytes', value: 29 })
  for (const { name } of gauges) expect(name).toMatch(/^[a-z]+(_[a-z]+)*$/)
})

test('what scripts read is the same list', () => {
  const gauges = gaugesOf(MEASURED)
  const { bytes, requests, counters } = totalsOf(gauges)
  expect([bytes, requests]).toEqual([{ served: 1, fetched: 9, verified: 18 }, 8])
  expect(Object.entries(counters)).toEqual(gauges.map(({ name, value }) => [name, value]))
})

test('a cache that was not measured is not told as an empty one', () => {
  const { counters } = totalsOf(gaugesOf({ ...MEASURED, cache: undefined }))
  expect(Object.keys(counters)).not.toContain('cache_bytes')
  expect(counters.cache_freed).toBe(28)
})

test('the operations page says of each number its kind and its unit', async () => {
  const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const rows = page.split('\n').filter((line) => line.startsWith('| `'))
  for (const { name, kind, unit } of gaugesOf(MEASURED)) {
    const row = rows.find(
      (each) => each.split('|')[1]?.includes(`\`${name}\``) && each.includes(`| ${kind}, ${unit} |`),
    )
    expect(row, `${name}: ${kind}, ${unit}`).toBeDefined()
  }
})

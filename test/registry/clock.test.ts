// A machine whose clock is wrong, or jumps: all waits are by a clock that does not, and times that others name are by theirs.
import { afterEach, expect, test, vi } from 'vitest'
import { blobs, makeScene } from './scene.ts'

const YEAR_MS = 365 * 24 * 60 * 60_000

afterEach(() => void vi.useRealTimers())

for (const years of [-1, 1]) {
  test(`a jump of ${years} year: tokens, signed URLs and pauses last as long as before`, async () => {
    const { start, open, layer } = await makeScene()
    const [registry, storage] = [await start(), await start()]
    const now = new Date()
    const date = now.toUTCString()
    registry.auth = { scheme: 'bearer', expiresS: 600 }
    const signed = `X-Amz-Expires=600&X-Amz-Date=${now.toISOString().replace(/[-:]|\.\d+/g, '')}`
    registry.faults = [blobs({ redirect: `${storage.url}/v2/x/blobs/${layer.digest}?${signed}`, headers: { date } })]
    const { program, registries } = open(`${registry.host}/a/b:v1`)
    await program.read(0)
    vi.useFakeTimers({ toFake: ['Date'], now: now.getTime() + years * YEAR_MS })
    await program.read(9)
    // the storage is asked without the registry, and the token counts as well
    expect(registry.seen.map(({ kind }) => kind)).toEqual(['blob', 'token', 'blob'])
    registry.faults = []
    storage.faults = [blobs({ status: 403, nth: 1 })]
    await program.read(18)
    expect(registry.seen.map(({ kind }) => kind)).toEqual(['blob', 'token', 'blob', 'blob'])
    // by the clock of whoever says it this is over
    registry.faults = [blobs({ status: 503, nth: 1, headers: { 'retry-after': date, date } })]
    await program.read(27)
    expect(registries.counters()).toMatchObject({ retries: 1, tokens: 1 })
  })
}

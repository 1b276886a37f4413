// A sample of what `npm run soak` does, and that it does something.
import { expect, test } from 'vitest'
import { runs } from '../fixtures/runs.ts'
import { mutate } from './mutate.ts'
import { Random } from './random.ts'
import { TARGETS } from './targets.ts'

for (const target of TARGETS) {
  test(`${target.name}: damaged input is refused, or read as something that keeps every promise`, async () => {
    for (const seed of target.seeds) expect(await target.run(Uint8Array.from(seed))).toBe('read')
    const seen = { read: 0, refused: 0 }
    for (let number = 0; number < runs(300); number++) {
      seen[await target.run(mutate(target.seeds, new Random(number)))]++
    }
    // damage that never mattered, or left nothing to read, would show nothing
    expect(Math.min(seen.read, seen.refused)).toBeGreaterThan(runs(10))
  })
}

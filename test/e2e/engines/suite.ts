// A group of tests that not every machine can run. Where it cannot, one skipped test bears its name and the reason; the reporter
// prints both, so that nothing is left out in silence.
import { describe, test } from 'vitest'

/** `describe`, or one named skip when `reason` says why it cannot run here. */
export function suite(title: string, reason: string | undefined, body: () => void): void {
  if (reason === undefined) describe(title, body)
  else test.skip(`${title} (${reason})`, () => undefined)
}

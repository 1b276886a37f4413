// A folder for the store's tests.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A new folder, removed after the test. */
export async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'lazylayer-store-'))
  onTestFinished(() => rm(made, { recursive: true, force: true }))
  return made
}

// A full pull, as a process of its own.
import { execFile } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Served } from './image.ts'

const run = promisify(execFile)

/** At the slowest sensible link. */
const TIMEOUT_MS = 300_000

/** Into `dir`, which is emptied. @returns it */
export async function fullPull({ origin, repository, tag }: Served, dir: string): Promise<string> {
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir)
  await run(process.execPath, [join(import.meta.dirname, 'full-pull.ts'), origin, repository, tag, dir], {
    timeout: TIMEOUT_MS,
  })
  return dir
}

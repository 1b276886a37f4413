// The engines of this machine.

import { runProgram } from './program.ts'
import { ENGINES, type Engine, type FoundEngine, foundEngine } from './versions.ts'

/** An engine that is installed, and does not say its version: what it does with a store is not known. */
export interface SilentEngine {
  engine: Engine
  /** A clause. */
  why: string
}

export interface EnginesHere {
  found: FoundEngine[]
  silent: SilentEngine[]
}

/** Those that are installed, by what their `--version` says. */
export async function findEngines(run = runProgram): Promise<EnginesHere> {
  const here: EnginesHere = { found: [], silent: [] }
  const answers = await Promise.all(ENGINES.map(async (engine) => [engine, await run(engine, ['--version'])] as const))
  for (const [engine, answered] of answers) {
    if (answered === undefined) continue
    const found = answered.why === undefined ? foundEngine(engine, answered.stdout) : undefined
    if (found !== undefined) here.found.push(found)
    else here.silent.push({ engine, why: answered.why ?? 'what it prints has no version number' })
  }
  return here
}

// The engines of this machine.
import { ENGINES, type FoundEngine, foundEngine } from './engines.ts'
import { runProgram } from './program.ts'

/** Those whose `--version` says one. */
export async function findEngines(run = runProgram): Promise<FoundEngine[]> {
  const asked = ENGINES.map(async (engine) => {
    const answered = await run(engine, ['--version'])
    const found = answered?.code === 0 ? foundEngine(engine, answered.stdout) : undefined
    return found === undefined ? [] : [found]
  })
  return (await Promise.all(asked)).flat()
}

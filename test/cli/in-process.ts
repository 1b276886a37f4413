// A command in the test's own process, as `lazylayer ARGS` runs it: a process of its own takes most of a second of a processor.
import { vi } from 'vitest'
import { type Invocation, parseCommandLine } from '../../src/cli/flags.ts'
import { errorText, exitCode } from '../../src/cli/output.ts'
import type { Outcome } from '../e2e/engines/command.ts'

/** One at a time in a process. @param env all of the environment */
export async function inProcess(
  command: (invocation: Invocation) => Promise<number>,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Outcome> {
  const said = { stdout: '', stderr: '' }
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said[name] += text
      return true
    }),
  )
  for (const name of new Set([...Object.keys(process.env), ...Object.keys(env)])) vi.stubEnv(name, env[name])
  try {
    return { code: await command(parseCommandLine(args) as Invocation), ...said }
  } catch (error) {
    return { code: exitCode(error), stdout: said.stdout, stderr: said.stderr + errorText(error) }
  } finally {
    vi.unstubAllEnvs()
    for (const spy of spies) spy.mockRestore()
  }
}

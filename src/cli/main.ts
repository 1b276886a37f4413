// The command line: finds the command, prints its errors, and turns them into an exit code.
import { fileURLToPath } from 'node:url'
import { version } from './agent.ts'
import { runDetached } from './detached.ts'
import { cat, ls } from './files.ts'
import { type Invocation, parseCommandLine } from './flags.ts'
import { inspect } from './inspect.ts'
import { mount } from './mount.ts'
import { errorText, exitCode } from './output.ts'
import { serve } from './serve.ts'
import { status } from './status.ts'
import { umount } from './umount.ts'

const RUN: Readonly<Record<string, (invocation: Invocation) => Promise<number>>> = {
  mount,
  umount,
  serve,
  inspect,
  ls,
  cat,
  status,
}

/** @returns the exit code: 0 done, 1 failed, 2 the command line is wrong */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    if (argv[0] === '--version' || argv[0] === 'version') {
      process.stdout.write(`${version()}\n`)
      return 0
    }
    const invocation = parseCommandLine(argv)
    if ('help' in invocation) {
      process.stdout.write(`${invocation.help}\n`)
      return 0
    }
    if (invocation.values.detach === true) {
      const target = invocation.positionals[1] as string // mount, the one command with this flag, has it
      return await runDetached(argv, target, fileURLToPath(new URL('lazylayer.js', import.meta.url)))
    }
    const run = RUN[invocation.command.name]
    if (run === undefined) throw new TypeError(`command ${invocation.command.name} is listed but not there`)
    return await run(invocation)
  } catch (error) {
    process.stderr.write(errorText(error))
    return exitCode(error)
  }
}

// The command line: finds the command, prints its errors, and turns them into an exit code.
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Invocation, parseCommandLine } from './flags.ts'
import { leave } from './leave.ts'
import { errorText, exitCode } from './output.ts'

type Command = (invocation: Invocation) => Promise<number>

/** Each loaded when it is run: all that the others need takes longer than many a command does. */
const LOAD: Readonly<Record<string, () => Promise<Command>>> = {
  mount: async () => (await import('./mount.ts')).mount,
  upgrade: async () => (await import('./upgrade.ts')).upgrade,
  umount: async () => (await import('./umount.ts')).umount,
  serve: async () => (await import('./serve.ts')).serve,
  pull: async () => (await import('./pull.ts')).pull,
  fill: async () => (await import('./fill.ts')).fill,
  inspect: async () => (await import('./inspect.ts')).inspect,
  explain: async () => (await import('./explain.ts')).explain,
  ls: async () => (await import('./files.ts')).ls,
  cat: async () => (await import('./files.ts')).cat,
  status: async () => (await import('./status.ts')).status,
  cache: async () => (await import('./cache.ts')).cache,
  profile: async () => (await import('./profile.ts')).profile,
  setup: async () => (await import('./setup.ts')).setup,
  doctor: async () => (await import('./doctor.ts')).doctor,
}

/** Also from where it has this file compiled. */
const PACKAGE = fileURLToPath(new URL('../../', import.meta.url))

/** Commands that look at files which may hang, and do not wait for these. What others print may be long. */
const LEAVING = ['mount', 'upgrade', 'umount', 'serve', 'pull', 'fill', 'status', 'explain', 'setup', 'doctor']

/** @returns the exit code: 0 done, 1 failed, 2 the command line is wrong */
export async function main(argv: readonly string[]): Promise<number> {
  const code = await run(argv)
  if (LEAVING.includes(argv[0] as string)) leave(code)
  return code
}

async function run(argv: readonly string[]): Promise<number> {
  const said = outliveReaders()
  try {
    if (argv[0] === '--version' || argv[0] === 'version') {
      const { version } = await import('../agent/version.ts')
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
      const { runDetached } = await import('./detached.ts')
      return await runDetached(argv, target, join(PACKAGE, 'src/cli/lazylayer.js'))
    }
    const load = LOAD[invocation.command.name]
    if (load === undefined) throw new TypeError(`command ${invocation.command.name} is listed but not there`)
    return await (await load())(invocation)
  } catch (error) {
    if (isClosedPipe(error)) return 0
    if (!said.has(error)) process.stderr.write(errorText(error))
    return exitCode(error)
  }
}

/**
 * Whoever reads what we print may leave (`| head`), and a disk with a log may be full: neither ends a mount.
 * @returns the errors that were printed
 */
function outliveReaders(): ReadonlySet<unknown> {
  const said = new Set<unknown>()
  process.stderr.on('error', () => {}) // nowhere to say it
  process.stdout.on('error', (error) => {
    if (isClosedPipe(error)) return
    said.add(error)
    process.stderr.write(errorText(error))
    process.once('exit', () => {
      process.exitCode ||= 1 // what was asked for was not printed
    })
  })
  return said
}

function isClosedPipe(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED')
}

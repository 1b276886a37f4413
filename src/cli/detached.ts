// lazylayer mount --detach: the same command again without it, in the background.
import { spawn } from 'node:child_process'
import { mkdir, open, readFile, realpath, unlink } from 'node:fs/promises'
import { resolve } from 'node:path'
import { logFor, places, socketFor } from '../agent/agent-places.ts'
import { refuseServed } from '../agent/serving.ts'
import { within } from '../engines/machine.ts'
import { Failure } from '../errors.ts'

/**
 * Returns when it is mounted, or has failed; its messages are in a file beside its socket while it runs.
 * @throws Failure usage
 */
export async function runDetached(argv: readonly string[], target: string, launcher: string): Promise<number> {
  await refuseServed(target)
  const dir = await within(realpath(target), target).catch((cause) => {
    if (cause instanceof Failure) throw cause
    throw Failure.usage(`${target} cannot be mounted on`, { cause, fix: 'Create the directory first.' })
  })
  const rest = argv.filter((each) => each !== '--detach' && each !== '-d')
  const { sockets } = places()
  await mkdir(sockets, { recursive: true, mode: 0o700 })
  const socket = socketFor(sockets, dir)
  if (dir !== resolve(target)) await refuseServed(dir)
  const logFile = logFor(socket)
  const log = await open(logFile, 'w', 0o600)
  const child = spawn(process.execPath, [launcher, ...rest], {
    detached: true,
    stdio: ['ignore', 'pipe', log.fd],
  })
  await log.close()
  const code = await new Promise<number>((done, fail) => {
    child.stdout?.once('data', (line: Buffer) => {
      process.stdout.write(line)
      child.stdout?.destroy()
      child.unref()
      done(0)
    })
    child.once('exit', (code) => done(code ?? 1))
    child.once('error', (error) => fail(Failure.system('the agent cannot be started', { cause: error })))
  })
  if (code !== 0) {
    process.stderr.write(await readFile(logFile))
    await unlink(logFile)
  }
  return code
}

// lazylayer mount IMAGE DIR
import { spawn } from 'node:child_process'
import { mkdir, open, readFile, unlink } from 'node:fs/promises'
import { describe } from '../errors.ts'
import { parseReference } from '../image/reference.ts'
import { Grafts } from '../mount/graft.ts'
import { openAllLayers, openMerged } from '../mount/image.ts'
import { MountSession } from '../mount/session.ts'
import { log, openAgent, places } from './agent.ts'
import type { Invocation } from './flags.ts'
import { logFor, socketFor } from './places.ts'
import { prepareDirectory, serveUntilEnd } from './serving.ts'

export async function mount({ positionals, values }: Invocation): Promise<number> {
  const [name, target] = positionals as [string, string] // as many as the command declares
  const reference = parseReference(name)
  const agent = await openAgent(values)
  try {
    const dir = await prepareDirectory(agent.native, target, false)
    const image = await agent.images.resolve(reference)
    const layers = await openAllLayers(image, agent.layers)
    const merged = await openMerged(layers, agent.store, agent.builder)
    const session = MountSession.mount(agent.native, {
      dir,
      fsname: `lazylayer:${name}`,
      allowOther: process.getuid?.() === 0,
      rootSlot: merged.slot,
    })
    new Grafts(session).tree(merged.slot, merged.image, layers)
    await merged.image.close()
    for (const each of layers) {
      each.prefetch().catch((error) => log(`prefetch of ${each.descriptor.digest}: ${describe(error)}`))
    }
    return await serveUntilEnd({ session, agent, serves: name, layers: () => layers.length }, () => {
      process.stdout.write(`${name} is mounted on ${dir} (fuse, ${layers.length} layers)\n`)
    })
  } catch (error) {
    await agent.close()
    throw error
  }
}

/** Starts the same command without --detach in the background, its messages in a file beside its socket; returns when it is mounted. */
export async function mountDetached(argv: readonly string[], dir: string, launcher: string): Promise<number> {
  const rest = argv.filter((each) => each !== '--detach' && each !== '-d')
  const { sockets } = places()
  await mkdir(sockets, { recursive: true, mode: 0o700 })
  const logFile = logFor(socketFor(sockets, dir))
  const log = await open(logFile, 'w', 0o600)
  const child = spawn(process.execPath, [launcher, ...rest], {
    detached: true,
    stdio: ['ignore', 'pipe', log.fd],
  })
  await log.close()
  const code = await new Promise<number>((done) => {
    child.stdout?.once('data', (line: Buffer) => {
      process.stdout.write(line)
      child.stdout?.destroy()
      child.unref()
      done(0)
    })
    child.once('exit', (code) => done(code ?? 1))
  })
  if (code !== 0) {
    process.stderr.write(await readFile(logFile))
    await unlink(logFile)
  }
  return code
}

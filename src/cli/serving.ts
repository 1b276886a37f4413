// The life of a mount, the same for an image and for a store: mounted, told to the keeper, answering on its socket, and ended in
// order by a signal, a request, or from outside.
import { mkdir, realpath, stat, unlink } from 'node:fs/promises'
import { describe, Failure } from '../errors.ts'
import { Keeper } from '../mount/keeper.ts'
import type { NativeModule } from '../mount/native.ts'
import type { MountSession } from '../mount/session.ts'
import { type Agent, log, places, version } from './agent.ts'
import { logFor, socketFor } from './places.ts'
import { type Answer, listen, type Request, type Status } from './socket.ts'

/** The directory to mount on, absolute, existing, and without a dead mount on it. @throws Failure system, usage */
export async function prepareDirectory(native: NativeModule, dir: string, create: boolean): Promise<string> {
  if (await native.isDead(dir)) {
    log(`detaching a dead mount at ${dir}`)
    await native.unmount(dir, true)
  }
  if (create) await mkdir(dir, { recursive: true, mode: 0o755 })
  const real = await realpath(dir).catch((cause) => {
    throw Failure.usage(`${dir} cannot be mounted on`, { cause, fix: 'Create the directory first.' })
  })
  if (!(await stat(real)).isDirectory()) throw Failure.usage(`${dir} is no directory`)
  return real
}

/** Signals that end a mount in order. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export interface Served {
  session: MountSession
  agent: Agent
  serves: string
  layers(): number
}

/** Serves until the mount ends. `ready` runs when everything answers. @returns the exit code */
export async function serveUntilEnd({ session, agent, serves, layers }: Served, ready: () => void): Promise<number> {
  const keeper = Keeper.current(process.env)
  keeper.mounted(session.dir)
  const path = socketFor(places().sockets, session.dir)
  const status = (): Status => {
    const native = session.counters()
    const { requests, fetched } = agent.registries.counters()
    const codecs = agent.codecs.counters()
    return {
      pid: process.pid,
      version: version(),
      root: session.dir,
      serves,
      mounts: [{ dir: session.dir, kind: 'fuse' }],
      layers: layers(),
      bytes: { served: Number(native.served), fetched, verified: codecs.verified },
      requests,
      counters: {
        reads: Number(native.reads),
        reads_missed: Number(native.missed),
        reads_failed: Number(native.failed),
        expired: Number(native.expired),
        lookups: Number(native.lookups),
        chunks_corrupt: codecs.corrupt,
        chunks_reverified: codecs.reverified,
        images_corrupt: agent.store.counters.corruptImages,
        records_corrupt: agent.store.counters.corruptRecords,
      },
    }
  }
  const answer = async (request: Request): Promise<Answer> => {
    if (request.op === 'status') return { ok: true, status: status() }
    return (await session.unmount()) ? { ok: true } : { ok: false, what: `${session.dir} is busy` }
  }
  const server = await listen(path, answer).catch(async (error) => {
    await session.detach()
    throw error
  })
  const stopped = Promise.withResolvers<string>()
  const stop = async () => {
    try {
      if (!(await session.unmount())) {
        log(`${session.dir} is busy: detached; programs that use it get errors for what is not cached`)
        await session.detach()
      }
    } catch (error) {
      log(`${session.dir} cannot be unmounted: ${describe(error)}`)
    }
    stopped.resolve('stopped')
  }
  for (const signal of SIGNALS) process.on(signal, () => void stop()) // answers its own errors
  ready()
  const reason = await Promise.race([session.ended, stopped.promise])
  if (reason !== 'unmounted' && reason !== 'stopped') log(`the mount ended: ${reason}`)
  keeper.unmounted(session.dir)
  session.close()
  server.close()
  for (const file of [path, logFor(path)]) await unlink(file).catch(() => {}) // usually gone, or never there
  await agent.close()
  return 0
}

// The life of a mount, the same for an image and for a store: mounted, answering on its socket, and ended in order by a signal, a
// request, or from outside.

import { mkdir, realpath, stat, unlink } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { within } from '../engines/machine.ts'
import { describe, Failure } from '../errors.ts'
import { isKernelMount, type KernelMount } from '../mount/kernel-mounts.ts'
import type { RungChoice } from '../mount/ladder.ts'
import { keepersOf } from '../mount/mount-namespaces.ts'
import { mountPoints, mountTable } from '../mount/mount-table.ts'
import type { NativeModule } from '../mount/native.ts'
import { visibility } from '../mount/propagation.ts'
import { logFor, places, socketFor } from './agent-places.ts'
import { distributionsOf, gaugesOf, totalsOf } from './gauges.ts'
import { log } from './log.ts'
import { type Measurable, measure } from './measure.ts'
import {
  type AgentAnswer,
  type AgentRequest,
  ask,
  type FillRequest,
  type ListRequest,
  listen,
  type Status,
} from './socket.ts'
import { version } from './version.ts'

/** In the mount table. */
export const FUSE_TYPE = 'fuse.lazylayer'

/** What to do about a mount whose agent does not answer here, as `lazylayer umount` asks it to. */
export function endsElsewhere(dir: string): string {
  return `Stop that agent where it was started, or use the system's own umount as root: /usr/bin/umount --recursive ${dir}`
}

/**
 * The directory to mount on, absolute, existing, with no running agent and without what an earlier life left mounted on it.
 * @throws Failure system, usage
 */
export async function prepareDirectory(native: NativeModule, dir: string): Promise<string> {
  await refuseServed(dir)
  await detachDead(native, dir)
  const real = await within(realpath(dir), dir).catch((cause) => {
    if (cause instanceof Failure) throw cause
    throw Failure.usage(`${dir} cannot be mounted on`, { cause, fix: 'Create the directory first.' })
  })
  if (!(await within(stat(real), real)).isDirectory()) throw Failure.usage(`${dir} is no directory`)
  if (real !== resolve(dir)) await refuseServed(real)
  // one that is dead was detached above
  if ((await mountTable()).some((each) => each.point === real && each.type === FUSE_TYPE)) {
    throw Failure.system(`another agent has mounted on ${real}`, {
      why: 'its socket is elsewhere: it runs with another RUNTIME_DIRECTORY, or as another user',
      fix: endsElsewhere(real),
    })
  }
  // an EROFS mount of an agent that died looks alive: its metadata and cached data still are
  const left = (await mountTable()).filter((each) => each.point === real && isKernelMount(each))
  for (const _ of left) {
    log(`detaching a dead mount at ${real}`)
    await native.unmount(real, true)
  }
  return real
}

/** A directory of our own to mount on. @throws Failure timeout: it hangs; what the system throws */
export async function makeDirectory(native: NativeModule, dir: string, mode: number): Promise<string> {
  await detachDead(native, dir)
  await within(mkdir(dir, { recursive: true, mode }), dir)
  return await within(realpath(dir), dir)
}

/** Before the directory is touched, which one whose agent hangs does not answer. @throws Failure timeout: it hangs, system: one serves it */
export async function refuseServed(dir: string): Promise<void> {
  const path = resolve(dir)
  if ((await ask(socketFor(places().sockets, path), { op: 'status' })) === undefined) return
  throw Failure.system(`an agent is already running for ${path}`, { fix: `lazylayer umount ${path} ends it.` })
}

async function detachDead(native: NativeModule, dir: string): Promise<void> {
  if (!(await native.isDead(dir))) return
  log(`detaching a dead mount at ${dir}`)
  await native.unmount(dir, true)
}

/** The kernel tells nobody that an EROFS mount was ended by somebody else. */
const GONE_POLL_MS = 2_000

/** Resolves when nothing is mounted on `dir` any more. */
export function goneFrom(dir: string): Promise<string> {
  return new Promise((resolve) => {
    const timer = setInterval(async () => {
      const mounted = await mountPoints().catch(() => undefined) // asked again soon
      if (mounted === undefined || mounted.has(dir)) return
      clearInterval(timer)
      resolve('unmounted')
    }, GONE_POLL_MS)
    timer.unref()
  })
}

/** Who has just ended may hold it a moment longer: the kernel closes files, and ends overlays, behind a process's end. */
const UNMOUNT_AFTER_MS = [0, 50, 200, 500]

/** Of what would still like to look at it. */
const ENDING_MS = 2_000

/** The same, when programs wait for the next agent. */
const YIELD_MS = 500
/** In which an answer is written to a socket. */
const ANSWERED_MS = 50

/** Signals that end a mount in order. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export interface ServedMount extends Measurable {
  /** What the user named. */
  dir: string
  choice: RungChoice
  serves: string
  /** Of a store: whose DiffIDs it believes, and whether it names layers by them only. */
  diffid?: Status['diffid']
  /** Of a store whose agent answers monitoring. */
  metrics?: () => Promise<Status['metrics']>
  /** Answers requests to list images. */
  list(request: ListRequest): Promise<AgentAnswer>
  /** And to bring them to containerd. */
  fill(request: FillRequest): Promise<AgentAnswer>
  /** Ends what clients do here before the mount goes. Never rejects, and takes a second at most. */
  leave(): Promise<void>
  /** Resolves with a reason when it has ended without our doing. */
  ended: Promise<string>
}

/** Serves until the mount ends. `ready` runs when everything answers. @returns the exit code */
export async function serveUntilEnd(served: ServedMount, ready: () => void): Promise<number> {
  const { dir, session, covers, agent } = served
  const path = socketFor(places().sockets, dir)
  const unmount = async () => {
    await Promise.race([served.recorder.end(), sleep(ENDING_MS, undefined, { ref: false })])
    for (const waitMs of UNMOUNT_AFTER_MS) {
      await sleep(waitMs)
      const rest = () => session.unmount()
      if (await (covers?.unmount(rest) ?? rest())) return true
    }
    return false
  }
  const detach = async () => {
    await covers?.detach()
    await session.detach()
  }
  let upgrading = false
  const upgrade = async (): Promise<AgentAnswer> => {
    if (!agent.keeper.succeeds || session.state === undefined) {
      return {
        ok: false,
        what: 'no other agent can go on with its mount',
        fix: 'docs/reliability.md says when one can.',
      }
    }
    if (upgrading) return { ok: false, what: 'it is being upgraded already' }
    upgrading = true
    const isLeaving = await agent.keeper.upgrade()
    upgrading = false
    if (!isLeaving) {
      return { ok: false, what: 'the new agent could not go on, and the old one does', fix: 'Its log says why.' }
    }
    setTimeout(() => void yieldMount(served), ANSWERED_MS) // never rejects
    return { ok: true }
  }
  const answer = async (request: AgentRequest): Promise<AgentAnswer> => {
    if (request.op === 'status') return { ok: true, status: await statusOf(served) }
    if (request.op === 'list') return await served.list(request)
    if (request.op === 'fill') return await served.fill(request)
    if (request.op === 'upgrade') return await upgrade()
    return (await unmount()) ? { ok: true } : await busy(dir)
  }
  const server = await listen(path, answer).catch(async (error) => {
    await detach()
    throw error
  })
  const stopped = Promise.withResolvers<string>()
  let stopping = false
  const stop = async () => {
    if (stopping) return // a second signal changes nothing
    stopping = true
    if (agent.keepsOnExit && session.state !== undefined) {
      if (agent.keeper.leave()) return await yieldMount(served)
      log('--on-exit keep: systemd holds nothing here, so the mount ends')
    }
    await served.leave()
    try {
      if (!(await unmount())) {
        log(`${dir} is busy: detached; programs that use it get errors for what is not cached`)
        await detach()
      }
    } catch (error) {
      log(`${dir} cannot be unmounted: ${describe(error)}`)
    }
    stopped.resolve('stopped')
  }
  for (const signal of SIGNALS) process.on(signal, () => void stop()) // answers its own errors
  await Promise.race([session.initialized, session.ended])
  ready()
  agent.keeper.ready()
  const reason = await Promise.race([session.ended, served.ended, stopped.promise])
  agent.keeper.end()
  if (reason !== 'unmounted' && reason !== 'stopped') log(`the mount ended: ${reason}`)
  await served.leave()
  // whoever ended one of several mounts meant all of them
  await detach().catch(() => {}) // nothing left is the usual case
  agent.keeper.unmounted(dir)
  session.close()
  server.close()
  for (const file of [path, logFor(path)]) await unlink(file).catch(() => {}) // usually gone, or never there
  await agent.close()
  return 0
}

/** What `umount` says of a mount that is in use. */
async function busy(dir: string): Promise<AgentAnswer> {
  const what = `${dir} is busy`
  const keepers = await keepersOf(dir).catch(() => []) // then nothing is said of them
  if (keepers.length === 0) return { ok: false, what }
  return {
    ok: false,
    what: `${what}; copies of its mounts are in other mount namespaces, of ${keepers.join(', ')}`,
    fix: `End what uses it here (fuser -vm ${dir} shows that), or wait until these processes have ended.`,
  }
}

/** Leaves the mount, with all that waits for it, to the agent that is prepared to go on. */
async function yieldMount(served: ServedMount): Promise<void> {
  await served.leave()
  await Promise.race([served.recorder.end(), sleep(YIELD_MS, undefined, { ref: false })]).catch(() => {}) // it is worth no more
  // whatever else ended here would fail the reads that wait
  process.kill(process.pid, 'SIGKILL')
}

async function statusOf(served: ServedMount): Promise<Status> {
  const { dir, session, covers, choice, agent, serves, diffid } = served
  const points = await mountPoints()
  const shown = covers?.mounts.filter((each) => points.has(each.dir)) ?? [] // not those that somebody else unmounted
  const { seen, why } = await visibility(dir)
  const measured = await measure(served)
  const { cache, layers } = measured
  const metrics = await served.metrics?.()
  const gauges = gaugesOf(measured)
  return {
    pid: process.pid,
    version: version(),
    root: dir,
    serves,
    mount: choice.rung,
    ...(choice.why === undefined ? {} : { why: choice.why }),
    seen,
    ...(why === undefined ? {} : { unseen: why }),
    mounts: [{ dir: session.dir, kind: 'fuse' }, ...shown.map(rungOf)],
    ...(diffid === undefined ? {} : { diffid }),
    ...(metrics === undefined ? {} : { metrics }),
    layers,
    ...totalsOf(gauges),
    outages: agent.registries.outages(),
    ...(cache === undefined ? {} : { cache: { dir: agent.store.dir, ...cache } }),
    gauges,
    distributions: distributionsOf(measured),
  }
}

/** The rung of one mount; of a merged image, each device has its own. */
function rungOf({ dir, devices, complete }: KernelMount): Status['mounts'][number] {
  if (complete === devices) return { dir, kind: 'complete' }
  return { dir, kind: 'erofs', ...(complete === 0 ? {} : { complete, devices }) }
}

// lazylayer upgrade [DIR]
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { places } from '../agent/agent-places.ts'
import { askAt, type Status } from '../agent/socket.ts'
import { Failure } from '../errors.ts'
import type { Invocation } from './flags.ts'

/** The new agent has all that the old one had when it says its status; a large store on a busy machine takes its time. */
const GOES_ON_MS = 60_000
const LOOK_MS = 100

export async function upgrade({ positionals }: Invocation): Promise<number> {
  const { sockets, root } = places()
  const dir = resolve(positionals[0] ?? root)
  const before = await statusAt(sockets, dir)
  if (before === undefined) {
    throw Failure.missing(`no agent serves ${dir}`, { fix: 'lazylayer status shows those that do.' })
  }
  const answer = await askAt(sockets, dir, { op: 'upgrade' })
  if (answer?.ok !== true) {
    const fix = answer?.fix
    throw Failure.system(`the agent of ${dir} is not upgraded`, {
      why: answer?.what ?? 'it is gone',
      ...(fix === undefined ? {} : { fix }),
    })
  }
  const now = await goesOn(sockets, dir, before.pid)
  process.stdout.write(`${dir}: version ${now.version} (process ${now.pid}) goes on after ${before.version}\n`)
  return 0
}

async function goesOn(sockets: string, dir: string, before: number): Promise<Status> {
  const until = performance.now() + GOES_ON_MS
  while (performance.now() < until) {
    const status = await statusAt(sockets, dir).catch(() => undefined) // the old one may be ending
    if (status !== undefined && status.pid !== before) return status
    await sleep(LOOK_MS)
  }
  throw Failure.timeout(`the new agent of ${dir} does not answer yet`, {
    fix: `lazylayer status ${dir} shows when it does.`,
  })
}

async function statusAt(sockets: string, dir: string): Promise<Status | undefined> {
  const answer = await askAt(sockets, dir, { op: 'status' })
  return answer?.ok === true ? answer.status : undefined
}

// lazylayer status [ROOT|DIR]

import { places } from '../agent/agent-places.ts'
import { type Hung, hungAgent } from '../agent/hung.ts'
import { log } from '../agent/log.ts'
import { type AgentAnswer, ask, askAt, listSockets, type Status } from '../agent/socket.ts'
import { text } from '../agent/values.ts'
import { describe, Failure } from '../errors.ts'
import { strandedOverlays } from '../mount/stranded.ts'
import type { Invocation } from './flags.ts'
import { count, errorText, printJson, sizeText, table } from './output.ts'

export async function status({ positionals, values }: Invocation): Promise<number> {
  const dir = positionals[0]
  const { sockets } = places()
  const { answers, hung } =
    dir === undefined ? await askAll(sockets) : { answers: [await askAt(sockets, dir, { op: 'status' })], hung: [] }
  const found = answers.flatMap((each) => (each?.ok && each.status ? [each.status] : []))
  if (dir !== undefined && found.length === 0) {
    throw Failure.missing(`no agent serves ${dir}`, { fix: 'lazylayer status without a directory shows all.' })
  }
  if (text(values, 'format') === 'json') printJson(dir === undefined ? found : found[0])
  else {
    const rows = [...found.map(row), ...hung.map(hungRow)]
    process.stdout.write(rows.length === 0 ? 'nothing is mounted\n' : table(HEAD, rows))
  }
  for (const { root, seen, unseen, counters, cache, outages = [] } of found) {
    for (const each of outages) log(`${root}: reads fail at once: ${each}`)
    if (cache !== undefined && cache.aside > 0)
      log(
        `${cache.dir}: ${sizeText(cache.aside)} of ${sizeText(cache.bytes)} are set aside; the next start removes them`,
      )
    const { background_left: left = 0, background_layers: filling = 0 } = counters
    if (filling > 0) log(`${root}: ${sizeText(left)} of ${count(filling, 'layer')} are still to come in the background`)
    if (seen === 'no' && unseen !== undefined) log(unseen)
    const quarantined = counters.quarantined ?? 0
    if (quarantined > 0) log(`${root}: ${count(quarantined, 'layer')} quarantined; the agent's log says which and why`)
  }
  // mounts that hang among them: nothing below these is touched
  const dirs = [...found.map(({ root }) => root), ...hung.flatMap(({ dir }) => dir ?? [])]
  const stranded = await strandedOverlays(dirs.map((each) => ({ dir: each, isAlive: true })))
  if (stranded.length > 0)
    log(`${count(stranded.length, 'container')} of an earlier mount must be started anew; lazylayer doctor names them`)
  return hung.length > 0 ? 1 : 0
}

/** One agent that does not answer hides none of the others. */
async function askAll(sockets: string): Promise<{ answers: (AgentAnswer | undefined)[]; hung: readonly Hung[] }> {
  const hung: Hung[] = []
  const asked = (await listSockets(sockets)).map((each) =>
    ask(each, { op: 'status' }).catch(async (error) => {
      if (error instanceof Failure && error.code === 'timeout') {
        hung.push(await hungAgent(each))
        process.stderr.write(errorText(error))
      } else log(describe(error))
      return undefined
    }),
  )
  return { answers: await Promise.all(asked), hung }
}

const HEAD = ['DIR', 'SERVES', 'MOUNT', 'LAYERS', 'SERVED', 'FETCHED', 'VERIFIED', 'REQUESTS', 'PID']

function hungRow({ dir, pid }: Hung): string[] {
  const unknown = (value: unknown) => (value === undefined ? '?' : String(value))
  return [unknown(dir), 'hung', ...Array<string>(6).fill('-'), unknown(pid)]
}

function row(of: Status): string[] {
  return [
    of.root,
    of.serves,
    of.mount,
    String(of.layers),
    sizeText(of.bytes.served),
    sizeText(of.bytes.fetched),
    sizeText(of.bytes.verified),
    String(of.requests),
    String(of.pid),
  ]
}

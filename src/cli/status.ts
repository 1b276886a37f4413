// lazylayer status [ROOT|DIR]
import { resolve } from 'node:path'
import { Failure } from '../errors.ts'
import { places, text } from './agent.ts'
import type { Invocation } from './flags.ts'
import { printJson, sizeText, table } from './output.ts'
import { socketFor } from './places.ts'
import { ask, listSockets, type Status } from './socket.ts'

export async function status({ positionals, values }: Invocation): Promise<number> {
  const dir = positionals[0]
  const { sockets } = places()
  const paths = dir === undefined ? await listSockets(sockets) : [socketFor(sockets, resolve(dir))]
  const answers = await Promise.all(paths.map((each) => ask(each, { op: 'status' })))
  const found = answers.flatMap((each) => (each?.ok && each.status ? [each.status] : []))
  if (dir !== undefined && found.length === 0) {
    throw Failure.missing(`no agent serves ${dir}`, { fix: 'lazylayer status without a directory shows all.' })
  }
  if (text(values, 'format') === 'json') printJson(dir === undefined ? found : found[0])
  else process.stdout.write(found.length === 0 ? 'nothing is mounted\n' : table(HEAD, found.map(row)))
  return 0
}

const HEAD = ['DIR', 'SERVES', 'MOUNT', 'LAYERS', 'SERVED', 'FETCHED', 'VERIFIED', 'REQUESTS', 'PID']

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

// lazylayer pull IMAGE [--root ROOT] [--prove | --require-lazy] [--creds USER:PASSWORD]

import { places } from '../agent/agent-places.ts'
import { log } from '../agent/log.ts'
import { type AgentAnswer, type AgentRequest, askAt } from '../agent/socket.ts'
import { givenLogin, text } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import type { ListOutcome } from '../stores/outcome.ts'
import type { Invocation } from './flags.ts'
import { count, sizeText } from './output.ts'

/** The agent answers each question within 10 s, and goes on with the work: an hour is for whole blobs over slow links. */
const DEADLINE_MS = 3_600_000
/** Between two lines that say how far it is. */
const TELL_EVERY_MS = 10_000

const CREDENTIALS =
  ' The agent uses what engines handed over for this repository, else its own credentials: auth.json of its user, or serve --creds-file.'

/**
 * Has the agent list an image's layers before an engine looks for them. What no index describes is fetched whole for that; with
 * --prove everything is, so that engines that know DiffIDs only find it; with --require-lazy nothing is.
 */
export async function pull({ positionals, values }: Invocation): Promise<number> {
  const reference = referenceText(parseReference(positionals[0] as string)) // the command declares it
  const { sockets, root: defaultRoot } = places()
  const root = text(values, 'root') ?? defaultRoot
  const lazily = values['require-lazy'] === true
  if (lazily && values.prove === true) throw Failure.usage('--prove fetches layers whole, which --require-lazy forbids')
  const prove = lazily ? 'none' : values.prove === true ? 'all' : 'needed'
  const credentials = givenLogin(values)
  const asks = async (request: AgentRequest): Promise<AgentAnswer> => {
    const answer = await askAt(sockets, root, request)
    if (answer !== undefined) return answer
    const start = root === defaultRoot ? 'lazylayer serve' : `lazylayer serve ${root}`
    const fix = `Start one: ${start}. One of another user is asked by that user, or by root: sudo lazylayer pull.`
    throw Failure.missing(`no agent serves ${root}`, { fix })
  }
  const started = performance.now()
  let before = await fetched(asks)
  let told = Number.NEGATIVE_INFINITY
  for (;;) {
    const answer = await asks({ op: 'list', reference, prove, ...(credentials === undefined ? {} : { credentials }) })
    if (!answer.ok) {
      const now = performance.now()
      if (answer.late !== true || now - started > DEADLINE_MS) {
        // registries call what they do not show missing, too
        const maybe = answer.code === 'denied' || answer.code === 'missing'
        const usual = `Run lazylayer doctor ${reference}.${maybe ? CREDENTIALS : ''}`
        throw Failure.unavailable(`${reference} was not listed`, { why: answer.what, fix: answer.fix ?? usual })
      }
      if (now - told < TELL_EVERY_MS) continue
      told = now
      const total = await fetched(asks)
      before = before === undefined || total === undefined || total >= before ? before : 0 // another agent counts anew
      const meanwhile =
        before === undefined || total === undefined ? '' : `; the agent fetched ${sizeText(total - before)} meanwhile`
      log(`${reference}: not listed yet after ${Math.round((now - started) / 1000)} s${meanwhile}`)
      continue
    }
    const { listed = [], left = [], why } = answer.outcome ?? {}
    const layers = count(listed.length + left.length, 'layer')
    if (lazily && left.length > 0) throw wholeNeeded(reference, left.length, layers, why)
    process.stdout.write(`${reference}: ${listed.length} of ${layers} listed${namesText(listed)}\n`)
    if (why !== undefined) process.stdout.write(`  from ${left[0]} on they are the engine's to pull: ${why}\n`)
    return left.length > 0 ? 1 : 0 // it was asked for all of it
  }
}

function wholeNeeded(reference: string, left: number, layers: string, why: string | undefined): Failure {
  return Failure.unsupported(`${reference}: ${left} of ${layers} cannot be served lazily`, {
    ...(why === undefined ? {} : { why }),
    fix: 'Without --require-lazy the agent fetches them whole; lazylayer explain IMAGE says more.',
  })
}

/** What engines find them by: older ones know DiffIDs only. */
function namesText(listed: ListOutcome['listed']): string {
  const names = (
    [
      ['diffid', 'DiffID'],
      ['index', 'index'],
    ] as const
  ).flatMap(([by, name]) => {
    const layers = listed.filter((each) => each.by === by).length
    return layers === 0 ? [] : [`${layers} by ${name}`]
  })
  return names.length === 0 ? '' : ` (${names.join(', ')})`
}

/** Bytes that the agent has fetched since it began, for whatever it serves; undefined: it has too much to do to say so. */
async function fetched(asks: (request: AgentRequest) => Promise<AgentAnswer>): Promise<number | undefined> {
  const answer = await asks({ op: 'status' }).catch(() => undefined) // what matters is asked for next, with more patience
  return answer?.ok ? answer.status?.bytes.fetched : undefined
}

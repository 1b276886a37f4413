// lazylayer pull IMAGE [--root ROOT] [--prove]
import { Failure } from '../errors.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import { places, text } from './agent.ts'
import type { Invocation } from './flags.ts'
import { count } from './output.ts'
import { askAt } from './socket.ts'

/** The agent answers each question within 10 s, and goes on with the work: an hour is for whole blobs over slow links. */
const DEADLINE_MS = 3_600_000

/**
 * Has the agent list an image's layers before an engine looks for them. What no index describes is fetched whole for that; with
 * --prove everything is, so that engines that know DiffIDs only find it.
 */
export async function pull({ positionals, values }: Invocation): Promise<number> {
  const reference = referenceText(parseReference(positionals[0] as string)) // the command declares it
  const { sockets, root: defaultRoot } = places()
  const root = text(values, 'root') ?? defaultRoot
  const prove = values.prove === true ? 'all' : 'needed'
  const deadline = performance.now() + DEADLINE_MS
  for (;;) {
    const answer = await askAt(sockets, root, { op: 'list', reference, prove })
    if (answer === undefined) {
      throw Failure.missing(`no agent serves ${root}`, { fix: 'Start one: lazylayer serve.' })
    }
    if (!answer.ok) {
      if (answer.late === true && performance.now() < deadline) continue
      throw Failure.unavailable(`${reference} was not listed`, { why: answer.what })
    }
    const { listed = [], left = [], why } = answer.outcome ?? {}
    process.stdout.write(`${reference}: ${listed.length} of ${count(listed.length + left.length, 'layer')} listed\n`)
    if (why !== undefined) process.stdout.write(`  from ${left[0]} on they are the engine's to pull: ${why}\n`)
    return 0
  }
}

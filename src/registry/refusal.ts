// What an answer without content means: a Failure that says what, who and why.
import { Failure } from '../errors.ts'
import type { Answer } from './client.ts'
import { passing, pauseAskedMs } from './retry.ts'

/** Errors of servers and of what stands before them that go away. */
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504])
const MESSAGE_MAX_BYTES = 16 << 10

/** Whether a status says that the host does not know us, or does not let us. */
export function isRefusal(status: number): boolean {
  return status === 401 || status === 403
}

/** The registry has refused what we could show it. */
export function notLetIn(
  what: string,
  host: string,
  status: number,
  authorized: boolean,
  to: 'pull' | 'push' = 'pull',
): Failure {
  const none =
    to === 'push'
      ? 'it wants credentials, and there are none'
      : 'it wants credentials, and there are none; what an engine has pulled, it pulls again to hand them over'
  return Failure.denied(`${what}: ${host} refuses access with status ${status}`, {
    // the agent's log has no more than this: engines hand credentials over with each pull, and an agent that is new has none
    why: authorized ? `the credentials do not suffice${to === 'push' ? ' to push' : ''}` : none,
    fix: `Log in with: podman login ${host}`,
  })
}

/** @param own the registry itself answers: only its own words are repeated */
export async function refusalOf(what: string, answer: Answer, own: boolean): Promise<Failure> {
  const { status } = answer
  const says = `${what}: ${answer.url.host} answers with status ${status}`
  const why = own ? await message(answer) : undefined
  const reason = why === undefined ? {} : { why }
  if (status === 404 || status === 410) return Failure.missing(says, reason)
  if (isRefusal(status)) return Failure.denied(says, reason)
  if (status === 416) return Failure.corrupt(says, { why: 'the manifest names a size that the blob does not have' })
  const failure = Failure.unavailable(says, reason)
  if (!PASSING.has(status)) return failure
  return passing(failure, pauseAskedMs(answer.header))
}

/** What a registry says of its refusal (distribution specification, error codes), one printable line of it. */
async function message(answer: Answer): Promise<string | undefined> {
  const parts: Uint8Array[] = []
  let size = 0
  await answer.body((bytes) => {
    size += bytes.length
    parts.push(bytes)
    return size > MESSAGE_MAX_BYTES ? false : undefined
  })
  if (size > MESSAGE_MAX_BYTES) return undefined
  try {
    const text: unknown = JSON.parse(Buffer.concat(parts).toString('utf8'))?.errors?.[0]?.message
    if (typeof text !== 'string' || text === '') return undefined
    return `it says ${JSON.stringify(text.replace(/[^\x20-\x7e]/g, '?').slice(0, 200))}`
  } catch {
    return undefined // its own words are a courtesy
  }
}

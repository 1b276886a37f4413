// What `explain` asks the agent that serves the store: where its cache is, and what came of its last attempt at the image.

import { places } from '../../agent/agent-places.ts'
import { log } from '../../agent/log.ts'
import { type AgentRequest, askAt, type Status } from '../../agent/socket.ts'
import { text, type Values } from '../../agent/values.ts'
import { describe } from '../../errors.ts'
import type { ListOutcome } from '../../stores/outcome.ts'

/** What is looked into and believed for an image. */
export interface AgentHere {
  /** As it was named, else the agent's, else where it would be. */
  cache: string
  /** Of the last `pull` of the image, if this agent saw one. */
  outcome: ListOutcome | undefined
  /** What it was told to believe; undefined: no agent says so. */
  diffid: Status['diffid'] | undefined
}

/** Never rejects for what the agent is like: what it knows is left out then, and said. */
export async function agentHere(values: Values, reference: string): Promise<AgentHere> {
  const { cache: usual, root, sockets } = places()
  const asks = (request: AgentRequest) =>
    askAt(sockets, text(values, 'root') ?? root, request).catch((error) => {
      log(`what the running agent knows is left out: ${describe(error)}`)
      return undefined
    })
  const status = await asks({ op: 'status' })
  const known = status?.ok ? await asks({ op: 'list', reference, known: true }) : undefined
  return {
    cache: text(values, 'cache') ?? (status?.ok ? status.status?.cache?.dir : undefined) ?? usual,
    outcome: known?.ok ? known.outcome : undefined,
    diffid: status?.ok ? status.status?.diffid : undefined,
  }
}

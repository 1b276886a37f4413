// lazylayer fill IMAGE [--namespace NAMESPACE] [--root ROOT]

import { places } from '../agent/agent-places.ts'
import { log } from '../agent/log.ts'
import { askAt } from '../agent/socket.ts'
import { text } from '../agent/values.ts'
import { Failure } from '../errors.ts'
import type { Invocation } from './flags.ts'
import { count, sizeText } from './output.ts'

/** As `pull` waits. */
const DEADLINE_MS = 3_600_000
const TELL_EVERY_MS = 10_000

/**
 * Has the agent bring the layers of an image that containerd did not fetch into its content store, so that it can export, convert and push
 * the image.
 */
export async function fill({ positionals, values }: Invocation): Promise<number> {
  const image = positionals[0] as string // the command declares it
  const { sockets, root: defaultRoot } = places()
  const root = text(values, 'root') ?? defaultRoot
  const namespace = text(values, 'namespace')
  const request = { op: 'fill', image, ...(namespace === undefined ? {} : { namespace }) } as const
  const started = performance.now()
  let told = started
  for (;;) {
    const answer = await askAt(sockets, root, request)
    if (answer === undefined) {
      throw Failure.missing(`no agent serves ${root}`, { fix: 'Start one: lazylayer serve --containerd SOCKET.' })
    }
    const now = performance.now()
    if (answer.ok) {
      for (const { namespace, name, layers, written, bytes } of answer.filled ?? []) {
        const what = written === 0 ? 'nothing was missing' : `${written} brought, ${sizeText(bytes)}`
        process.stdout.write(`${name} in ${namespace}: ${count(layers, 'layer')}, ${what}\n`)
      }
      return 0
    }
    if (answer.late !== true || now - started > DEADLINE_MS) {
      const fix = answer.fix === undefined ? {} : { fix: answer.fix }
      throw Failure.unavailable(`${image} was not brought to containerd`, { why: answer.what, ...fix })
    }
    if (now - told < TELL_EVERY_MS) continue
    told = now
    log(`${image}: not all of it is in containerd after ${Math.round((now - started) / 1000)} s`)
  }
}

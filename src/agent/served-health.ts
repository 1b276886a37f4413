// What a store's agent says of itself to monitoring.
import { statfs } from 'node:fs/promises'
import { within } from '../engines/machine.ts'
import { visibility } from '../mount/propagation.ts'
import { distributionsOf, gaugesOf } from './gauges.ts'
import { type HealthParts, shared } from './health.ts'
import { measure } from './measure.ts'
import type { ServedMount } from './serving.ts'
import { version } from './version.ts'

/** What makes the text is loaded only where it is asked for: other agents have no part of it in memory. */
export async function healthOf(served: ServedMount): Promise<HealthParts> {
  const { metricsText } = await import('./metrics.ts')
  const { dir, choice } = served
  const info = { version: version(), mount: choice.rung }
  // the kernel has no answer of its own to it, so that the session must; one that hangs takes one thread of Node's, however often it is asked
  const asked = shared(() => statfs(dir))
  const alive = async () => {
    await within(asked(), dir)
  }
  return {
    alive,
    async whyNotReady() {
      await alive()
      const { seen, why } = await visibility(dir)
      return seen === 'no' ? (why ?? `engines do not see ${dir}`) : undefined
    },
    async metrics() {
      const measured = await measure(served)
      return await metricsText(gaugesOf(measured), distributionsOf(measured), info)
    },
  }
}

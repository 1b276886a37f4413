// lazylayer mount IMAGE DIR: the registry is asked for the image first, and while its answer is on the way the rest of us is loaded.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { askAhead } from '../agent/open-registries.ts'
import { parseReference } from '../image/reference.ts'
import { Keeper } from '../mount/keeper.ts'
import type { Invocation } from './flags.ts'

export async function mount(invocation: Invocation): Promise<number> {
  const [name] = invocation.positionals as [string] // as many as the command declares
  const asked = askAhead(invocation.values, parseReference(name), Keeper.isSuccessor(process.env))
  await asked.underWay
  await import('../agent/agent.ts')
  await nextTurn() // loading is done in one turn, and what has come meanwhile is to go on
  const { mountImage } = await import('./mount-image.ts')
  return await mountImage(invocation, asked)
}

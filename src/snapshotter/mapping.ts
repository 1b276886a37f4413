// The user namespace of a container, as clients write it: `0:100000:65536`, first the container's ID, then the host's, then how many;
// several comma separated. Pure.
import { Failure } from '../errors.ts'

const PART = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/

/** The host's ID of the container's root. @throws Failure usage */
export function hostRoot(mapping: string): number {
  const refuse = (what: string) => Failure.usage(`${JSON.stringify(mapping.slice(0, 200))} maps no ${what}`)
  const parts = mapping.split(',').map((each) => {
    const [, ...numbers] = PART.exec(each) ?? []
    if (numbers.length === 0) throw refuse('IDs')
    return numbers.map(Number)
  })
  const outside = parts.find(([inside, , count = 0]) => inside === 0 && count > 0)?.[1]
  if (outside === undefined) throw refuse('root')
  return outside
}

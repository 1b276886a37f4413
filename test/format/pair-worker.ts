// The builder's worker, with the tests' own format.
import { FORMATS } from '../../src/format/formats.ts'
import { type Built, buildOf, type Failed, type Task } from '../../src/format/worker.ts'
import { pair } from './pair.ts'

export { examine, examineRaw, merge, readyToExamine } from '../../src/format/worker.ts'

export function build(task: Task): Built | Failed {
  return buildOf([...FORMATS, pair], task)
}

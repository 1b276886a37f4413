// What the agent's threads do that stand by: they decode chunks, and build trees of small indexes meanwhile, which spares it threads for that.
export { rest, run } from '../codec/worker.ts'
export { build, chunksOf, examineRaw, filesOf, merge } from '../format/worker.ts'

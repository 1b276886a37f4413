// The worker of engine-roots.ts: reads the roots that it was given, tells what it found, and ends.
import { parentPort, workerData } from 'node:worker_threads'
import { describe, Failure } from '../errors.ts'
import type { EngineRoot, References } from './engine-roots.ts'
import { readRoots } from './read-roots.ts'

/** The worker's one message: what it found, or why that is not known. */
export type Read = References | { why: string }

const read = await readRoots(workerData as EngineRoot[]).catch((error: unknown): Read => {
  if (error instanceof Failure) return { why: describe(error) }
  throw error
})
parentPort?.postMessage(read)

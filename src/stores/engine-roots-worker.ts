// The worker of engine-roots.ts: reads the roots that it was given, tells what it found, and ends.
import { parentPort, workerData } from 'node:worker_threads'
import { describe, Failure } from '../errors.ts'
import { type EngineRoot, type Read, readRoots } from './read-roots.ts'

void readRoots(workerData as EngineRoot[])
  .catch((error: unknown): Read => {
    if (error instanceof Failure) return { why: describe(error) }
    throw error // ends the thread, of which whoever started it is told
  })
  .then((read) => parentPort?.postMessage(read))

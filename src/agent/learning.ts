// Wires what learns from starts, and what uses it.
import type { IndexBuilder } from '../format/parser.ts'
import { type Platform, platformText } from '../image/manifest.ts'
import { PROFILE_MAX_BYTES, PROFILE_TYPE, parseProfile } from '../image/profile.ts'
import { referenceText } from '../image/reference.ts'
import type { Background } from '../layer/background.ts'
import { Learned, type LearnedParts } from '../layer/learned.ts'
import { Recorder } from '../layer/recorder.ts'
import type { KernelMounts } from '../mount/kernel-mounts.ts'
import type { Registries } from '../registry/registries.ts'
import type { Store } from '../store/store.ts'
import { log } from './log.ts'

/** A profile that comes later than that helps no start. */
const PUBLISHED_MS = 30_000

interface LearningParts {
  store: Store
  registries: Registries
  builder: IndexBuilder
  platform: Platform
  /** Aborts when the agent stops. */
  closing: AbortSignal
}

/** What has fetched first what starts are known to read. */
export function openLearned({ store, registries, builder, platform, closing }: LearningParts): Learned {
  const published: LearnedParts['published'] = async (reference, manifest, signal) => {
    if (reference.transport !== 'docker') return undefined // layouts have none
    const what = `profile of ${referenceText(reference)}`
    const parse = (bytes: Uint8Array) => parseProfile(bytes, what)
    const wanted = { subject: manifest, type: PROFILE_TYPE, maxBytes: PROFILE_MAX_BYTES, parse }
    const inTime = AbortSignal.any([signal, AbortSignal.timeout(PUBLISHED_MS)])
    return await registries.referrers(reference).newest(wanted, inTime)
  }
  return new Learned({
    profiles: store.profiles,
    platform: platformText(platform),
    chunksOf: (image, chunks, files, signal) => builder.chunksOf(image, chunks, files, signal),
    published,
    signal: () => AbortSignal.any([closing, store.room.full]),
    log,
  })
}

/** @param covers the kernel's mounts, whose read-ahead is told from what programs read; undefined: there are none */
export function openRecorder(
  {
    store,
    builder,
    platform,
    background,
  }: Pick<LearningParts, 'store' | 'builder' | 'platform'> & { background: Background | undefined },
  covers: KernelMounts | undefined,
): Recorder {
  return new Recorder({
    profiles: store.profiles,
    platform: platformText(platform),
    filesOf: (image, reads) => builder.filesOf(image, reads),
    chunksOf: (image, chunks, files) => builder.chunksOf(image, chunks, files),
    readParts: async (tree, parts) => await covers?.readParts(tree, parts),
    began: ({ digest }) => background?.want(digest),
    log,
  })
}

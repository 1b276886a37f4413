// What a filler did since it was made.

export interface FillerCounters {
  /** Ranged reads begun, and the bytes they asked for. */
  requests: number
  fetchedBytes: number
  /** Of these, bytes that came along with a miss because they lay beside it; and chunks that were asked for later, and were here. */
  nearbyBytes: number
  nearbyHits: number
  /** Chunks decoded and verified, and their decoded bytes. */
  filled: number
  filledBytes: number
  /** Chunks that were copied from elsewhere. */
  copied: number
  /** Chunks that waited for somebody else's flight. */
  joined: number
  /** Chunks of an earlier life found right, or wrong, on the disk. */
  reverified: number
  damaged: number
  /** Answers that did not match their digests. */
  corrupt: number
  /** Chunks filled although they were damaged or corrupt before. */
  healed: number
}

export function noCounters(): FillerCounters {
  return {
    requests: 0,
    fetchedBytes: 0,
    nearbyBytes: 0,
    nearbyHits: 0,
    filled: 0,
    filledBytes: 0,
    copied: 0,
    joined: 0,
    reverified: 0,
    damaged: 0,
    corrupt: 0,
    healed: 0,
  }
}

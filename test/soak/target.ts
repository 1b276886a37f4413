// What is fed with damaged bytes: a parser, and what stands behind it. A target is a small file in targets/; targets.ts lists them.

export interface Target {
  readonly name: string
  /** What is damaged: a few valid inputs, small ones first of all. */
  readonly seeds: readonly Uint8Array[]
  /**
   * Nothing else may come of any bytes: they are `read`, and what they say keeps every promise, or `refused` with a Failure.
   * @throws what else there is, which is a bug: of a parser, or an AssertionError for a promise that it broke
   */
  run(bytes: Uint8Array): Outcome | Promise<Outcome>
}

export type Outcome = 'read' | 'refused'

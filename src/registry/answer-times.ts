// How long registries take to begin an answer, by what they answer.

/** By the first digit of the status; `none`: there was no answer, or whoever asked gave up. */
const ANSWERS = ['2xx', '3xx', '4xx', '5xx', 'none'] as const
export type AnswerClass = (typeof ANSWERS)[number]

/** From a registry in the same rack to one that is given up. */
const UP_TO_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]

/** `counts`: of what took no longer than each of `upTo`, and longer than the one before; and, one more, of what took longer than all. */
export interface Times {
  /** Seconds. */
  readonly upTo: readonly number[]
  readonly counts: readonly number[]
  /** Of all together. */
  readonly seconds: number
}

export class AnswerTimes {
  readonly #of = { '2xx': nothing(), '3xx': nothing(), '4xx': nothing(), '5xx': nothing(), none: nothing() }

  /** @param status undefined: none came */
  note(status: number | undefined, seconds: number): void {
    const times = this.#of[classOf(status)]
    const found = UP_TO_SECONDS.findIndex((each) => seconds <= each)
    const at = found < 0 ? UP_TO_SECONDS.length : found
    times.counts[at] = (times.counts[at] ?? 0) + 1
    times.seconds += seconds
  }

  all(): Record<AnswerClass, Times> {
    const of = (each: AnswerClass): Times => {
      const { counts, seconds } = this.#of[each]
      return { upTo: UP_TO_SECONDS, counts: [...counts], seconds }
    }
    return { '2xx': of('2xx'), '3xx': of('3xx'), '4xx': of('4xx'), '5xx': of('5xx'), none: of('none') }
  }
}

function nothing() {
  return { counts: Array<number>(UP_TO_SECONDS.length + 1).fill(0), seconds: 0 }
}

function classOf(status: number | undefined): AnswerClass {
  if (status === undefined) return 'none'
  return ANSWERS.find((each) => each.startsWith(String(status)[0] ?? '')) ?? '5xx'
}

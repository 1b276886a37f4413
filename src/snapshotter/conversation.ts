// A call of gRPC in which each request is answered before the next is sent.
import { Failure } from '../errors.ts'

export interface Conversation<Q, A> {
  /** @throws what ends the call; Failure unavailable: the other side has ended it */
  ask(request: Q): Promise<A>
  /** No more is asked. */
  end(): void
}

/** @param call sends what it is given, and brings what comes for it */
export function converse<Q, A>(call: (requests: AsyncIterable<Q>) => AsyncIterable<A>): Conversation<Q, A> {
  let next = Promise.withResolvers<Q | undefined>()
  async function* requests(): AsyncGenerator<Q> {
    for (;;) {
      const request = await next.promise
      if (request === undefined) return
      next = Promise.withResolvers()
      yield request
    }
  }
  const answers = call(requests())[Symbol.asyncIterator]()
  return {
    async ask(request) {
      next.resolve(request)
      const { value, done } = await answers.next()
      if (done === true) throw Failure.unavailable('the other side ended the call')
      return value
    },
    end: () => next.resolve(undefined),
  }
}

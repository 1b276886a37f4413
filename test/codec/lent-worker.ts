// What threads run that decode and are lent for something else.
export { rest, run } from '../../src/codec/worker.ts'

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, each) => all + each, 0)
}

export function fail(numbers: readonly number[]): never {
  throw new RangeError(`${numbers.length} is too few`)
}

/** Until the gate is not 0. */
export function hold([gate]: [Int32Array]): void {
  Atomics.wait(gate, 0, 0)
}

// Layers that are only believed, and when each is read whole.
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import type { LayerLease, OpenLayer, Verdict } from '../../src/layer/layer.ts'
import { type Believed, BelievedProofs } from '../../src/stores/believed-proofs.ts'
import { digest, FakeLeases, image, lazy, proven } from './store.ts'

function proofs() {
  const end = new AbortController()
  const leases = new FakeLeases()
  const read: Digest[] = []
  const judged: [Digest, Verdict][] = []
  const corrupt: Digest[] = []
  const messages: string[] = []
  const answers = new Map<Digest, Verdict | Promise<Verdict> | Failure>()
  let idle = Promise.withResolvers<void>()
  let now = 0
  /** Whoever waits, and until when. */
  const pauses = new Set<{ until: number; over(): void }>()
  const made = new BelievedProofs({
    layers: {
      plan: planUnits,
      open: async ({ shown: descriptor }): Promise<LayerLease> =>
        leases.hold(descriptor.digest, { descriptor, tree: digest(`tree of ${descriptor.digest}`) } as OpenLayer), // what is used of it
      openEmpty: () => Promise.reject(new Error('a test needs it')),
      openWhole: async () => undefined,
      prove: async ({ descriptor }) => {
        read.push(descriptor.digest)
        const answer = answers.get(descriptor.digest) ?? Failure.unavailable('the registry is away')
        if (answer instanceof Failure) throw answer
        return answer
      },
    },
    whenIdle: async (work, signal) => {
      await idle.promise
      signal.throwIfAborted()
      await work()
    },
    beside: (blob) => blob,
    judged: ({ blob }, verdict) => void judged.push([blob, verdict]),
    corrupt: ({ blob }) => void corrupt.push(blob),
    now: () => now,
    pause: (ms, signal) =>
      new Promise<void>((over, fail) => {
        pauses.add({ until: now + ms, over })
        signal.addEventListener('abort', () => fail(signal.reason))
      }),
    signal: end.signal,
    log: (message) => void messages.push(message),
  })
  return {
    proofs: made,
    read,
    judged,
    corrupt,
    messages,
    answers,
    leases,
    end,
    async idle() {
      idle.resolve()
      await settled()
      idle = Promise.withResolvers()
    },
    async pass(ms: number) {
      now += ms
      for (const each of pauses) if (each.until <= now) each.over()
      await settled()
    },
  }
}

/** All that can go on without time has. */
const settled = () => new Promise((done) => setTimeout(done, 1))

const believed = (descriptor: Descriptor): Believed => ({
  image: image('app', [descriptor]),
  descriptor,
  claim: {
    diffId: digest('tar'),
    blob: descriptor.digest,
    index: digest('index'),
    tree: digest(`tree of ${descriptor.digest}`),
    together: false,
  },
})
const A = lazy('a')
const B = lazy('b')

test('each layer is read whole once when the link is idle, and no layer before; none stays open', async () => {
  const it = proofs()
  for (const each of [A, B]) it.answers.set(each.digest, proven(digest('tar')))
  for (const each of [A, B, A]) it.proofs.later(believed(each))
  await it.pass(60_000)
  expect([it.read, it.proofs.size]).toEqual([[], 2])
  await it.idle()
  expect(it.read).toEqual([A.digest, B.digest])
  expect(it.judged).toEqual([A, B].map((each) => [each.digest, proven(digest('tar'))]))
  expect([it.proofs.size, it.leases.held.size]).toEqual([0, 0])
})

test('a layer whose registry is away is tried again after 5 minutes, then after 10, and stays believed meanwhile', async () => {
  const it = proofs()
  it.proofs.later(believed(A))
  await it.idle()
  expect(it.read).toHaveLength(1)
  expect(it.messages).toEqual([expect.stringContaining('is still only believed: the registry is away')])
  await it.pass(299_000)
  await it.idle()
  expect(it.read).toHaveLength(1)
  await it.pass(2_000)
  await it.idle()
  expect(it.read).toHaveLength(2)
  await it.pass(590_000)
  await it.idle()
  expect(it.read).toHaveLength(2)
  // another one does not wait for that
  it.answers.set(B.digest, proven(digest('tar')))
  it.proofs.later(believed(B))
  await it.idle()
  expect(it.judged).toHaveLength(1)
  it.answers.set(A.digest, proven(digest('tar')))
  await it.pass(20_000)
  await it.idle()
  expect(it.proofs.size).toBe(0)
})

test('a blob that is not what its image says is told of, and tried again; what can never be proven is not', async () => {
  const it = proofs()
  it.answers.set(A.digest, Failure.corrupt('another digest'))
  it.answers.set(B.digest, Failure.unsupported('its trees cannot be compared'))
  for (const each of [A, B]) it.proofs.later(believed(each))
  await it.idle()
  await it.idle()
  expect([it.corrupt, it.proofs.size]).toEqual([[A.digest], 1])
})

test('what is wanted at once is read at once, by one reader', async () => {
  const it = proofs()
  it.answers.set(A.digest, proven(digest('tar')))
  it.proofs.later(believed(A))
  expect(it.proofs.of(believed(A).claim)?.descriptor).toBe(A)
  expect(await Promise.all([it.proofs.now(believed(A)), it.proofs.now(believed(A))])).toEqual([true, true])
  expect(it.read).toEqual([A.digest])
  expect(await it.proofs.now(believed(B))).toBe(false)
})

test('a registry that brings next to nothing keeps no other layer from being proven', async () => {
  const it = proofs()
  const slow = Promise.withResolvers<Verdict>()
  it.answers.set(A.digest, slow.promise)
  it.answers.set(B.digest, proven(digest('tar')))
  for (const each of [A, B]) it.proofs.later(believed(each))
  await it.idle()
  expect(it.judged).toEqual([])
  await it.pass(300_000)
  await it.idle()
  expect(it.judged.map(([blob]) => blob)).toEqual([B.digest])
  slow.resolve(proven(digest('tar')))
  await it.idle()
  expect([it.judged.length, it.proofs.size, it.read.length]).toEqual([2, 0, 2])
})

test('nothing is begun after the end, and the end waits for what is under way', async () => {
  const it = proofs()
  it.proofs.later(believed(A))
  it.end.abort(Failure.aborted('the end'))
  await it.idle()
  await it.proofs.close()
  expect(it.read).toEqual([])
})

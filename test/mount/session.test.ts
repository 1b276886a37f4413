import { openSync } from 'node:fs'
// The way of an upcall, with the native side faked: what is asked, and what is answered.
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { type Code, Failure } from '../../src/errors.ts'
import type { NativeModule, NativeSession, SessionCounters, SessionOptions, Upcalls } from '../../src/mount/native.ts'
import { type ControlTree, controlNode, type DeviceFiller, MountSession } from '../../src/mount/session.ts'

const ENOENT = 2
const EIO = 5
const EACCES = 13
const EOPNOTSUPP = 95

/** A native side that writes down what it is told. */
function fakeNative() {
  const calls: unknown[][] = []
  let upcalls: Upcalls | undefined
  class Session {
    constructor(options: SessionOptions, given: Upcalls) {
      calls.push(['session', options])
      upcalls = given
    }
    addDevice(): number {
      return 7
    }
    settle(...of: unknown[]) {
      calls.push(['settle', ...of])
    }
    extend() {
      calls.push(['extend'])
    }
    graft(...of: unknown[]) {
      calls.push(['graft', ...of])
    }
    restrict(...of: unknown[]) {
      calls.push(['restrict', ...of])
    }
    answerLookup(...of: unknown[]) {
      calls.push(['answerLookup', ...of])
    }
    settleLate(...of: unknown[]) {
      calls.push(['settleLate', ...of])
    }
    counters() {
      return { served: 1n } as SessionCounters
    }
    begin() {
      calls.push(['begin'])
    }
    close() {
      calls.push(['close'])
    }
  }
  const native = {
    openFuse: () => 42,
    mountFuse: (...of: unknown[]) => calls.push(['mountFuse', ...of]),
    Session: Session as unknown as new (options: SessionOptions, upcalls: Upcalls) => NativeSession,
    unmount: async (dir: string, lazy: boolean) => {
      calls.push(['unmount', dir, lazy])
    },
  }
  return {
    calls,
    native: native as unknown as NativeModule,
    get upcalls(): Upcalls {
      if (upcalls === undefined) throw new Error('no session yet')
      return upcalls
    },
  }
}

function mountSession(control?: ControlTree) {
  const fake = fakeNative()
  const settings = { dir: '/mnt', fsname: 'lazylayer', allowOther: true, rootSlot: null, missTimeoutMs: 1000 }
  const session = MountSession.mount(fake.native, control === undefined ? settings : { ...settings, control })
  fake.calls.length = 0
  return { session, fake }
}

test('a connection is offered to a successor when the kernel can give requests twice, and else to nobody', () => {
  for (const resends of [true, false]) {
    const fake = fakeNative()
    const offered: number[] = []
    const settings = { dir: '/mnt', fsname: 'lazylayer', allowOther: true, rootSlot: null }
    MountSession.mount(fake.native, { ...settings, resumable: (fuseFd) => offered.push(fuseFd) })
    expect(fake.calls).toContainEqual(['session', expect.objectContaining({ resend: true, resumed: false })])
    fake.upcalls.initialized(41, 0n, resends)
    expect(offered).toEqual(resends ? [42] : [])
  }
  const { fake } = mountSession()
  fake.upcalls.initialized(41, 0n, false) // nobody asked for it
})

test('a connection of a process that is gone is not mounted again, and is read from the beginning on alone', () => {
  const fake = fakeNative()
  const settings = { dir: '/mnt', fsname: 'lazylayer', allowOther: true, rootSlot: null }
  const session = MountSession.resume(fake.native, settings, 9)
  expect(fake.calls).toEqual([['session', expect.objectContaining({ fuseFd: 9, resumed: true })]])
  session.begin()
  expect(fake.calls.at(-1)).toEqual(['begin'])
})

const control = (of: Partial<ControlTree>): ControlTree => ({
  lookup: async () => {},
  late: async () => ({ fd: 1, close: async () => {} }),
  hint: () => {},
  ...of,
})

const SPEC = { deviceFd: 3, readyFd: 4, chunks: 2, size: 8192, places: new Uint8Array() }

const ERRNOS: readonly (readonly [Code, number])[] = [
  ['missing', ENOENT],
  ['denied', EACCES],
  ['unsupported', EOPNOTSUPP],
  ['corrupt', EIO],
  ['limit', EIO],
  ['unavailable', EIO],
  ['timeout', EIO],
  ['aborted', EIO],
  ['system', EIO],
]

test('the number of a control node is made of its path alone, and has the top bit set', () => {
  const node = controlNode('layers', 'abc')
  expect(controlNode('layers', 'abc')).toBe(node)
  expect(node >> 63n).toBe(1n)
  expect(node < 1n << 64n).toBe(true)
  const others = [
    controlNode('layers'),
    controlNode('layers', 'abd'),
    controlNode('layersabc'),
    controlNode('abc', 'layers'),
  ]
  expect(new Set([node, ...others]).size).toBe(5)
  // a successor of another version must find what the kernel holds
  expect(controlNode('layers')).toBe(0xe3b816898ca5ba5fn)
})

test('a mount is made on the descriptor that its session then answers on', () => {
  const fake = fakeNative()
  MountSession.mount(fake.native, { dir: '/mnt', fsname: 'x', allowOther: false, rootSlot: 3 })
  expect(fake.calls).toEqual([
    ['mountFuse', 42, '/mnt', { fsname: 'x', allowOther: false, readAhead: 256 << 10, readOnly: false }],
    ['session', expect.objectContaining({ fuseFd: 42, rootSlot: 3 })],
  ])
  const [, [, options]] = fake.calls as [unknown, [string, SessionOptions]]
  expect(options.missTimeoutMs).toBeGreaterThan(options.lookupTimeoutMs)
  expect(options.lateTimeoutMs).toBeGreaterThan(options.missTimeoutMs)
})

test('reads wait longer while there is progress, until nothing is missing', async () => {
  vi.useFakeTimers()
  try {
    let bytes = 0
    const fake = fakeNative()
    const settings = { dir: '/mnt', fsname: 'x', allowOther: true, rootSlot: null, missTimeoutMs: 1000 }
    const session = MountSession.mount(fake.native, { ...settings, progress: () => bytes })
    let settle: ((chunk: number, error?: unknown) => void) | undefined
    const fillEach: DeviceFiller['fillEach'] = (_, __, settled) => {
      settle = settled
    }
    const device = session.addDevice(SPEC, { fillEach }, () => {})
    fake.upcalls.miss(device, Uint32Array.of(1))
    fake.calls.length = 0
    await vi.advanceTimersByTimeAsync(1000)
    expect(fake.calls).toEqual([])
    bytes++
    await vi.advanceTimersByTimeAsync(1000)
    expect(fake.calls).toEqual([['extend']])
    settle?.(1)
    fake.calls.length = 0
    await vi.advanceTimersByTimeAsync(250)
    bytes++
    await vi.advanceTimersByTimeAsync(1000)
    expect(fake.calls).toEqual([])
    expect(vi.getTimerCount()).toBe(0)
  } finally {
    vi.useRealTimers()
  }
})

test('a user who may not open /dev/fuse is told that, and one who may not mount where he may', () => {
  const eacces = Object.assign(new Error('/dev/fuse: Permission denied'), { code: 'EACCES' })
  const eperm = Object.assign(new Error('mounting /mnt: Operation not permitted'), { code: 'EPERM' })
  const settings = { dir: '/mnt', fsname: 'x', allowOther: false, rootSlot: 3 }
  const mount = (of: Partial<NativeModule>) => () => MountSession.mount({ ...fakeNative().native, ...of }, settings)
  const throws = (error: Error) => () => {
    throw error
  }
  expect(mount({ openFuse: throws(eacces) })).toThrow(
    expect.objectContaining({ code: 'denied', fix: expect.stringContaining('chmod 666 /dev/fuse') }),
  )
  const other = { openFuse: () => openSync('/dev/null', 'r'), mountFuse: throws(eperm) }
  expect(mount(other)).toThrow(
    expect.objectContaining({ code: 'denied', fix: expect.stringContaining('podman unshare') }),
  )
})

test('a directory that shows a tree of root’s alone is closed before the tree is there', () => {
  const { session, fake } = mountSession()
  session.restrict(3)
  session.graft(10n, 'diff', 2)
  session.graft(11n, 'diff', 3)
  expect(fake.calls).toEqual([
    ['graft', 10n, 'diff', 2],
    ['restrict', 11n],
    ['graft', 11n, 'diff', 3],
  ])
})

test('missing chunks go to the filler of their device, and each is settled as it comes; failures are told of', () => {
  const { session, fake } = mountSession()
  const asked: number[][] = []
  let settle: ((chunk: number, error?: unknown) => void) | undefined
  const failed: unknown[] = []
  const fillEach: DeviceFiller['fillEach'] = (wanted, _, settled) => {
    asked.push([...wanted])
    settle = settled
  }
  const device = session.addDevice(SPEC, { fillEach }, (error) => failed.push(error))
  fake.upcalls.miss(device, Uint32Array.of(4, 5))
  expect(asked).toEqual([[4, 5]])
  expect(fake.calls).toEqual([])
  settle?.(5)
  const corrupt = Failure.corrupt('another digest')
  settle?.(4, corrupt)
  expect(fake.calls).toEqual([
    ['settle', device, 5, 0],
    ['settle', device, 4, EIO],
  ])
  expect(failed).toEqual([corrupt])
})

test.each(ERRNOS)('a read of what is %s is no absence of its file: EIO, or EACCES', (code) => {
  const { session, fake } = mountSession()
  const device = session.addDevice(
    SPEC,
    { fillEach: (_, __, settled) => settled(0, new Failure(code, 'no')) },
    () => {},
  )
  fake.upcalls.miss(device, Uint32Array.of(0))
  expect(fake.calls).toEqual([['settle', device, 0, code === 'denied' ? EACCES : EIO]])
})

test('chunks of a device that nobody fills are EIO', () => {
  const { fake } = mountSession()
  fake.upcalls.miss(99, Uint32Array.of(1, 2))
  expect(fake.calls).toEqual([
    ['settle', 99, 1, EIO],
    ['settle', 99, 2, EIO],
  ])
})

test('a lookup is answered after the control tree has added what there is', async () => {
  const log: string[] = []
  const { fake } = mountSession(
    control({
      async lookup(parent, name, uid) {
        await turn()
        log.push(`${parent} ${name} ${uid}`)
      },
    }),
  )
  fake.upcalls.lookup(12, 34n, 'name', 56)
  expect(fake.calls).toEqual([])
  await turn()
  await turn()
  expect(log).toEqual(['34 name 56'])
  expect(fake.calls).toEqual([['answerLookup', 12, 0]])
})

test.each([...ERRNOS, ['a bug', EIO] as const])(
  'a lookup that fails as %s is answered by errno %d',
  async (code, wanted) => {
    const { fake } = mountSession(
      control({
        async lookup() {
          throw code === 'a bug' ? new TypeError('of ours') : new Failure(code, 'no')
        },
      }),
    )
    fake.upcalls.lookup(1, 2n, 'x', 0)
    await turn()
    expect(fake.calls).toEqual([['answerLookup', 1, wanted]])
  },
)

test('without a control tree lookups and late files are EIO', async () => {
  const { fake } = mountSession()
  fake.upcalls.lookup(1, 2n, 'x', 0)
  fake.upcalls.late(3n)
  await turn()
  expect(fake.calls).toEqual([
    ['answerLookup', 1, EIO],
    ['settleLate', 3n, -1, EIO],
  ])
})

test('a late file is handed over before its descriptor is closed', async () => {
  const { fake } = mountSession(
    control({
      late: async (node) => ({
        fd: 55,
        close: async () => {
          fake.calls.push(['closed', node])
        },
      }),
    }),
  )
  fake.upcalls.late(9n)
  await turn()
  expect(fake.calls).toEqual([
    ['settleLate', 9n, 55, 0],
    ['closed', 9n],
  ])
})

test('a late file that does not come is answered by its errno', async () => {
  const { fake } = mountSession(control({ late: () => Promise.reject(Failure.missing('no such blob')) }))
  fake.upcalls.late(9n)
  await turn()
  expect(fake.calls).toEqual([['settleLate', 9n, -1, ENOENT]])
})

test('the descriptor of a late file is closed also when it cannot be handed over', async () => {
  const { fake, session } = mountSession(
    control({
      late: async () => ({
        fd: 55,
        close: async () => {
          fake.calls.push(['closed'])
        },
      }),
    }),
  )
  expect(session.dir).toBe('/mnt')
  const settleLate = failingOnce(fake)
  fake.upcalls.late(9n)
  await turn()
  expect(fake.calls).toEqual([['closed'], ['settleLate', 9n, -1, EIO]])
  settleLate.restore()
})

/** The native side refuses the first descriptor. */
function failingOnce({ native, calls }: ReturnType<typeof fakeNative>) {
  const prototype = native.Session.prototype as { settleLate(...of: unknown[]): void }
  const original = prototype.settleLate
  prototype.settleLate = (...of) => {
    prototype.settleLate = (...later) => void calls.push(['settleLate', ...later])
    if (of[2] === 0) throw new Error('too many open files')
  }
  return {
    restore: () => {
      prototype.settleLate = original
    },
  }
}

test('hints reach the control tree, and the end is told once', async () => {
  const hints: unknown[][] = []
  const { session, fake } = mountSession(control({ hint: (...of) => void hints.push(of) }))
  fake.upcalls.hint('create', 5n, 'use')
  expect(hints).toEqual([['create', 5n, 'use']])
  fake.upcalls.ended('unmounted')
  expect(await session.ended).toBe('unmounted')
})

test('a busy mount stays, and says so; every other error is thrown', async () => {
  const { session, fake } = mountSession()
  expect(await session.unmount()).toBe(true)
  await session.detach()
  expect(fake.calls).toEqual([
    ['unmount', '/mnt', false],
    ['unmount', '/mnt', true],
  ])
  const fails = (code: string) => {
    fake.native.unmount = () => Promise.reject(Object.assign(new Error(code), { code }))
  }
  fails('EBUSY')
  expect(await session.unmount()).toBe(false)
  fails('EPERM')
  await expect(session.unmount()).rejects.toMatchObject({ code: 'EPERM' })
})

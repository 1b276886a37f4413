// Who mounts: mount(2), or fusermount3 where that is refused; the native side is faked.
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { allowsOthers, mountFuse, usersMayAllowOthers } from '../../src/mount/fusermount.ts'
import type { MountOptions, NativeModule } from '../../src/mount/native.ts'
import { folder } from '../store/folder.ts'

const refusal = (code: string, message: string) => Object.assign(new Error(message), { code })

function fakeNative(of: Partial<NativeModule>) {
  const calls: [string, ...unknown[]][] = []
  const native = {
    openFuse: () => {
      throw refusal('EACCES', '/dev/fuse: Permission denied')
    },
    mountFuseByHelper: async (dir: string, options: MountOptions) => {
      calls.push(['helper', dir, options.fsname])
      return 42
    },
    Session: class {
      constructor(options: { fuseFd: number }) {
        calls.push(['session', options.fuseFd])
      }
    },
    ...of,
  }
  return { native: native as unknown as NativeModule, calls }
}

const SETTINGS = { dir: '/mnt', fsname: 'lazylayer:a,b', rootSlot: 1 }

test('the session serves the descriptor that fusermount3 hands over', async () => {
  const { native, calls } = fakeNative({})
  await mountFuse(native, SETTINGS)
  expect(calls).toEqual([
    ['helper', '/mnt', 'lazylayer:a,b'],
    ['session', 42],
  ])
})

test('where neither may mount, the error has both reasons', async () => {
  const { native } = fakeNative({
    mountFuseByHelper: async () => {
      throw refusal('ENOENT', 'fusermount3 is not installed')
    },
  })
  const error = await mountFuse(native, SETTINGS).catch((error) => error)
  expect(error).toBeInstanceOf(Failure)
  expect(error).toMatchObject({ code: 'denied', why: '/dev/fuse: Permission denied; fusermount3 is not installed' })
})

test('a label, which fusermount3 does not know, is not dropped in silence', async () => {
  const { native, calls } = fakeNative({})
  const error = await mountFuse(native, { ...SETTINGS, context: 'a:b:c:s0' }).catch((error) => error)
  expect(error).toMatchObject({ code: 'denied', why: expect.stringContaining('labels') })
  expect(calls).toEqual([])
})

test('what is no refusal is not asked of fusermount3', async () => {
  const { native, calls } = fakeNative({
    openFuse: () => {
      throw refusal('ENOENT', 'there is no /dev/fuse')
    },
  })
  await expect(mountFuse(native, SETTINGS)).rejects.toThrow('there is no /dev/fuse')
  expect(calls).toEqual([])
})

test.each([
  ['user_allow_other', true],
  ['# comment\n  user_allow_other  \nmount_max = 5\n', true],
  ['#user_allow_other\n', false],
  ['user_allow_other_not\n', false],
  ['allow user_allow_other\n', false],
  ['', false],
])('fuse.conf %j lets users allow others: %s', (text, allowed) => {
  expect(allowsOthers(text)).toBe(allowed)
})

test('no fuse.conf allows nothing', async () => {
  expect(await usersMayAllowOthers(join(await folder(), 'none'))).toBe(false)
})

// FUSE mounts by whoever asks: mount(2) where the user may (root, or root of a user namespace, as in `podman unshare`), else by
// fusermount3, which opens /dev/fuse and mounts for plain users.
import { readFile } from 'node:fs/promises'
import { describe, Failure } from '../errors.ts'
import type { NativeModule } from './native.ts'
import { MountSession, type SessionSettings } from './session.ts'

const CONFIGURATION = '/etc/fuse.conf'

/**
 * Others may look into the mount where this user may allow that: always by mount(2), else by what fuse.conf says.
 * @throws Failure denied: neither way is open; what mount(2) throws otherwise
 */
export async function mountFuse(
  native: NativeModule,
  settings: Omit<SessionSettings, 'allowOther'>,
): Promise<MountSession> {
  let refused: Failure
  try {
    return MountSession.mount(native, { ...settings, allowOther: true })
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'denied') throw error
    refused = error
  }
  if (settings.context !== undefined) {
    throw Failure.denied(`${settings.dir} cannot be mounted on with a label`, {
      why: `${refused.why}; fusermount3 knows no SELinux labels`,
      fix: 'Leave --context out, or mount as root.',
    })
  }
  try {
    return await MountSession.mountByHelper(native, { ...settings, allowOther: await usersMayAllowOthers() })
  } catch (cause) {
    throw Failure.denied(`${settings.dir} cannot be mounted on`, {
      why: `${refused.why}; ${describe(cause)}`,
      fix: 'Plain users need fusermount3 (package fuse3), setuid root, and a directory of their own.',
    })
  }
}

export async function usersMayAllowOthers(path = CONFIGURATION): Promise<boolean> {
  // without the file, or the right to read it, nothing is allowed
  return allowsOthers(await readFile(path, 'utf8').catch(() => ''))
}

/** fuse.conf(5): `user_allow_other` stands alone on a line; what begins with # is a comment. */
export function allowsOthers(configuration: string): boolean {
  return configuration.split('\n').some((line) => line.trim() === 'user_allow_other')
}

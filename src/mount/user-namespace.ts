// Whether this process is in the user namespace that the machine began with. Overlayfs reads its marks under other names elsewhere.
import { readlinkSync } from 'node:fs'

/**
 * The kernel's number for it, the same on every machine (include/uapi/linux/nsfs.h: USER_NS_INIT_INO). Its map of IDs would not tell: any
 * namespace may have one that maps all.
 */
const FIRST = 'user:[4026531837]'

/** @param link for tests */
export function inUserNamespace(link = '/proc/self/ns/user'): boolean {
  try {
    return readlinkSync(link) !== FIRST
  } catch {
    return false // a kernel without user namespaces, or no /proc: nobody can have made one
  }
}

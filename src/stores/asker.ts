// Who asks for what the store does not know.
import { AskLimit, ROOT_UID } from './ask-limit.ts'

/** By their user ID: root, a user who may, or one who asked too often. */
export type Asker = (uid: number) => 'root' | 'user' | 'refused'

/** For a store that nobody but its owner reaches. */
export const onlyRootAsks: Asker = () => 'root'

/** For a store that others reach, who are not to ask too often. */
export function askers(log: (message: string) => void): Asker {
  const limit = new AskLimit(log, () => performance.now())
  return (uid) => {
    if (!limit.takes(uid)) return 'refused'
    return uid === ROOT_UID ? 'root' : 'user'
  }
}

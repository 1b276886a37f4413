// lazylayer umount DIR
import { resolve } from 'node:path'
import { places } from '../agent/agent-places.ts'
import { endsElsewhere, FUSE_TYPE } from '../agent/serving.ts'
import { askAt } from '../agent/socket.ts'
import { Failure } from '../errors.ts'
import { mountTable } from '../mount/mount-table.ts'
import { openNative } from '../mount/no-addon.ts'
import type { Invocation } from './flags.ts'

export async function umount({ positionals }: Invocation): Promise<number> {
  const dir = resolve(positionals[0] as string) // the command declares it
  const { sockets } = places()
  // one that hangs is found out in a second; unmounting may take one that does not much longer
  const there = await askAt(sockets, dir, { op: 'status' })
  const answer = there && (await askAt(sockets, dir, { op: 'unmount' }))
  if (answer === undefined) {
    const native = openNative()
    if (!(await native.isDead(dir))) {
      if ((await mountTable()).some((each) => each.point === dir && each.type === FUSE_TYPE)) {
        throw Failure.system(`${dir} is mounted by an agent that does not answer here`, {
          why: 'its socket is elsewhere: it runs with another RUNTIME_DIRECTORY, or as another user',
          fix: endsElsewhere(dir),
        })
      }
      throw Failure.missing(`nothing of lazylayer is mounted on ${dir}`, { fix: 'lazylayer status shows what is.' })
    }
    await native.unmount(dir, true)
  } else if (!answer.ok) {
    throw Failure.system(`${dir} cannot be unmounted`, {
      why: answer.what,
      fix: answer.fix ?? `End what uses it (fuser -vm ${dir} shows that), then try again.`,
    })
  }
  return 0
}

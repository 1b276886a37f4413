// How fast a container reads small files for the first time whose bytes are on this node.
import type { Case } from '../case.ts'
import { BY_EROFS, BY_FUSE } from '../product.ts'
import { COMPLETE, FILES, type Lists, overlaySubjects } from './overlay.ts'

const LAYOUT = 'layout order files/s'
const SHUFFLED = 'shuffled files/s'

export const overlaySmallFiles: Case = {
  name: 'overlay-small-files',
  explains: `open, read and close of each of 20,000 files of 200 B to 9 KB under the overlay that Podman makes. "Cold" is the first
    time on new mounts and a new overlay: the kernel has neither names nor pages of them. The bytes are in the node's cache, in
    memory (the same for all subjects), and were verified in this life, by an agent that stays: what is measured is the
    mount, not the registry and not hashing. "layout order" is the order in which the files lie on the device, which is that of the index:
    few large READs where EROFS asks for the device. "shuffled" is the same files in an order that no read-ahead can guess.
    One more file was never read, so that the layer is not complete, but for "complete layer". ext4 is the tree itself as
    the lower layer and is always warm: the limit.`,
  rounds: 10,
  ratios: [
    { metric: LAYOUT, of: BY_EROFS, over: BY_FUSE, atLeast: 3 },
    { metric: LAYOUT, of: BY_EROFS, over: 'ext4' },
    { metric: LAYOUT, of: COMPLETE, over: BY_FUSE },
    { metric: SHUFFLED, of: BY_EROFS, over: BY_FUSE },
    { metric: SHUFFLED, of: COMPLETE, over: BY_FUSE },
    { metric: SHUFFLED, of: BY_EROFS, over: 'ext4' },
  ],
  async prepare(context) {
    const { probe } = context
    const reading = (order: keyof Lists) => ({
      counts: 'files' as const,
      async go(root: string, lists: Lists) {
        const read = await probe.list(probe.path, root, lists[order])
        if (read.files !== FILES) throw new Error(`${read.files} files of ${FILES} were read`)
        return read
      },
    })
    const subjects = await overlaySubjects(context, {
      'layout order': reading('layout'),
      shuffled: reading('shuffled'),
    })
    // it takes a quarter of a minute a turn; the case without an overlay has it
    return subjects.filter(({ name }) => name !== 'fuse-native')
  },
}

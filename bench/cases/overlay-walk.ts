// How fast a container's tree is listed.
import type { Case } from '../case.ts'
import { BY_EROFS, BY_FUSE } from '../product.ts'
import { COMPLETE, FILES, overlaySubjects, SHAPE } from './overlay.ts'

const METRIC = 'walk entries/s'
const ENTRIES = FILES + SHAPE.directories + 1
/** eStargz adds its landmark and its table of contents to what a mount shows. */
const FORMAT_ENTRIES_MAX = 2

export const overlayWalk: Case = {
  name: 'overlay-walk',
  explains: `readdir and stat of every entry of a tree of 20,201 entries under the overlay that Podman makes (the mount as the
    lower layer, a writable one over it), on mounts that nobody looked into yet. Of each regular file overlayfs asks for an
    extended attribute, which EROFS answers in the kernel and a FUSE server by a round trip. Each turn mounts anew. ext4
    is the tree itself as the lower layer and is always warm: the limit.`,
  rounds: 10,
  ratios: [
    { metric: METRIC, of: BY_EROFS, over: BY_FUSE, atLeast: 5 },
    { metric: METRIC, of: BY_EROFS, over: 'fuse-native', atLeast: 5 },
    { metric: METRIC, of: BY_EROFS, over: 'ext4' },
    { metric: METRIC, of: COMPLETE, over: 'ext4' },
  ],
  prepare: (context) =>
    overlaySubjects(context, {
      walk: {
        counts: 'entries',
        async go(root) {
          const walked = await context.probe.tree('walk', root)
          if (walked.entries < ENTRIES || walked.entries > ENTRIES + FORMAT_ENTRIES_MAX) {
            throw new Error(`a walk saw ${walked.entries} entries of ${ENTRIES}`) // a wrong tree has no speed
          }
          return walked
        },
      },
    }),
}

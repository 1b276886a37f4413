// Sequential reads that come from the bytes a mount has cached.
import type { Case } from '../case.ts'
import { BY_EROFS, BY_FUSE } from '../product.ts'
import { DEVICE_TOO, METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialDropped: Case = {
  name: 'sequential-dropped',
  explains: `A file of 128 MiB whose bytes were fetched before, read from start to end after the mount's own pages were given back
    (posix_fadvise DONTNEED on the file in the mount, checked with mincore). What lies below each mount is in memory once: the file
    on ext4 for fuse-native, the cache's file for the fuse rung, the device for EROFS (the cache's file is given back
    by the agent after large reads). "${DEVICE_TOO}" gives back the device as well (checked the same way): its bytes come from the
    disk, as ext4's do here, and through the server. fuse-native reads with fs.read; with fs.readSync it stops serving anything else, and
    is shown for information.`,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: BY_EROFS, over: 'fuse-native', atLeast: 1.5 },
    { metric, of: BY_EROFS, over: BY_FUSE, atLeast: 1.5 },
    { metric, of: BY_EROFS, over: 'fuse-native, readSync' },
    { metric, of: BY_FUSE, over: 'fuse-native', atLeast: 1.5 },
    { metric, of: DEVICE_TOO, over: 'fuse-native' },
    { metric, of: DEVICE_TOO, over: BY_FUSE },
    { metric, of: DEVICE_TOO, over: 'ext4' },
  ]),
  prepare: (context) => sequentialSubjects(context, 'drop'),
}

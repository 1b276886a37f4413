// Sequential reads that come from the bytes a mount has cached.
import type { Case } from '../case.ts'
import { BY_EROFS, BY_FUSE } from '../product.ts'
import { ALL_BY_EROFS, ALL_BY_FUSE, METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialDropped: Case = {
  name: 'sequential-dropped',
  explains: `A file of 128 MiB whose bytes were fetched before, read from start to end after the mount's own pages were given back
    (posix_fadvise DONTNEED on the file in the mount, checked with mincore). What lies below each mount is in memory once: the file
    on ext4 for fuse-native, the cache's file for the fuse rung, the device for EROFS (the cache's file is given back
    by the agent after large reads). "All given back" gives back that as well, device and cache's file (checked the same way): the bytes come
    from the disk, as ext4's do here, through the server. fuse-native reads with fs.read; with fs.readSync it stops serving anything else, and
    is shown for information.`,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: BY_EROFS, over: 'fuse-native', atLeast: 1.5 },
    { metric, of: BY_EROFS, over: BY_FUSE, atLeast: 1.5 },
    { metric, of: BY_EROFS, over: 'fuse-native, readSync' },
    { metric, of: BY_FUSE, over: 'fuse-native', atLeast: 1.5 },
    { metric, of: ALL_BY_EROFS, over: ALL_BY_FUSE },
    { metric, of: ALL_BY_EROFS, over: 'ext4' },
    { metric, of: ALL_BY_FUSE, over: 'ext4' },
  ]),
  prepare: (context) => sequentialSubjects(context, 'drop'),
}

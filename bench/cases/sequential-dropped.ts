// Sequential reads that come from the bytes a mount has cached.
import type { Case } from '../case.ts'
import { METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialDropped: Case = {
  name: 'sequential-dropped',
  explains: `A file of 128 MiB whose bytes were fetched before, read from start to end after the mount's own pages were given back
    (posix_fadvise DONTNEED on the file in the mount, checked with mincore): what is left is the way from the kernel to the
    server and its cached bytes. Files that lie below a mount keep their pages: ext4's for fuse-native, the cache's for lazylayer.
    fuse-native reads with fs.read; with fs.readSync it stops serving anything else, and is shown for information. ext4 reads from
    the disk here.`,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: 'lazylayer', over: 'fuse-native', atLeast: 1.5 },
    { metric, of: 'lazylayer', over: 'fuse-native, readSync' },
  ]),
  prepare: (context) => sequentialSubjects(context, 'drop'),
}

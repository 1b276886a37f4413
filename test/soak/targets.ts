// All that is soaked.
import type { Target } from './target.ts'
import { estargzToc } from './targets/estargz-toc.ts'
import { zstdChunkedToc } from './targets/zstd-chunked-toc.ts'

export const TARGETS: readonly Target[] = [estargzToc, zstdChunkedToc]

// All that is soaked.
import type { Target } from './target.ts'
import { artifacts } from './targets/artifact.ts'
import { chunks } from './targets/chunks.ts'
import { containerd } from './targets/containerd.ts'
import { estargzToc, estargzUsual } from './targets/estargz-toc.ts'
import { headers } from './targets/headers.ts'
import { manifest } from './targets/manifest.ts'
import { nydusBatches, nydusCheckpoints } from './targets/nydus-contexts.ts'
import { nydusLayer } from './targets/nydus-layer.ts'
import { nydusLz4 } from './targets/nydus-lz4.ts'
import { nydusTables } from './targets/nydus-tables.ts'
import { nydusToc } from './targets/nydus-toc.ts'
import { profile } from './targets/profile.ts'
import { rafs5 } from './targets/rafs5.ts'
import { rafs6, rafs6Usual } from './targets/rafs6.ts'
import { settings } from './targets/settings.ts'
import { signatures } from './targets/signatures.ts'
import { tar } from './targets/tar.ts'
import { zstdChunkedToc, zstdChunkedUsual } from './targets/zstd-chunked-toc.ts'

export const TARGETS: readonly Target[] = [
  manifest,
  profile,
  ...artifacts,
  tar,
  estargzToc,
  estargzUsual,
  zstdChunkedToc,
  zstdChunkedUsual,
  rafs5,
  rafs6,
  rafs6Usual,
  nydusLayer,
  nydusCheckpoints,
  nydusBatches,
  nydusTables,
  nydusToc,
  nydusLz4,
  ...chunks,
  ...headers,
  ...settings,
  ...signatures,
  ...containerd,
]

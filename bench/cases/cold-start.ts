// How long a program waits that starts from an image which is still in the registry.
import { join } from 'node:path'
import type { Case } from '../case.ts'
import { type Served, serveTree } from '../image.ts'
import { MANY, someOfMany } from '../some-of-many.ts'

export const coldStart: Case = {
  name: 'cold-start',
  explains: `A static program of 0.8 MB is started from an image of 3,000 files and about 48 MB, reads 200 of the files (6.5 % of the
    bytes) and exits; nothing is cached, and between registry and agent lies the link of --link. "first byte" is when the first
    of these files was read, "exit" when the program ended, both from when the command was started; requests and bytes are the
    registry's and the link's count until then, whatever they are for; "in all" until nothing comes any more. In "prioritized" the image says
    which files a start needs, in "lazylayer" it does not. "full pull" fetches all, unpacks it, then starts the program.`,
  // times: the other's over ours, so that more is better
  ratios: [
    { metric: 'exit s', of: 'full pull', over: 'lazylayer' },
    { metric: 'exit s', of: 'full pull', over: 'lazylayer, prioritized' },
    { metric: 'first byte s', of: 'full pull', over: 'lazylayer', atLeast: 2.5 },
    { metric: 'MB in all', of: 'full pull', over: 'lazylayer', atLeast: 1 / 1.02 },
  ],
  rounds: 10,
  async prepare(context) {
    const { dir, link, defer } = context
    const start = await someOfMany(context, MANY)
    let served: Promise<Served> | undefined
    const plain = () => {
      served ??= serveTree({ source: start.source, dir: join(dir, 'plain'), link, defer }) // of both that start from it
      return served
    }
    const prioritized = () =>
      serveTree({ source: start.source, dir: join(dir, 'prioritized'), link, defer, prioritized: start.wanted })
    return [
      { name: 'full pull', open: async () => start.pulled(await plain()) },
      { name: 'lazylayer', open: async () => start.lazily(await plain()) },
      { name: 'lazylayer, prioritized', open: async () => start.lazily(await prioritized()) },
    ]
  },
}

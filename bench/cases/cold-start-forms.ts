// How long a real program waits that starts from an image which is still in the registry, by the form that the image is kept in.
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Case, Context, Sample } from '../case.ts'
import { serveLayout } from '../image.ts'
import { mountImage } from '../product.ts'

const run = promisify(execFile)

/** What the layout's tags are, and what a subject is called. */
const FORMS = { py: 'eStargz', zstd: 'zstd:chunked', nydus: 'nydus', zran: 'nydus, zran' } as const
const BASE = FORMS.py
const WORDS = ['python3', '/app/app.py']
const SAYS = 'hello from flask\n'
const METRIC = 'exit s'
/** "Within 1.1 times" of eStargz. */
const AT_LEAST = 1 / 1.1

export const coldStartForms: Case = {
  name: 'cold-start-forms',
  explains: `A Python program that imports Flask and prints a line is started (chroot) from an image of 7,500 entries and two layers, in
    each of the forms that other tools made of the same files: eStargz, zstd:chunked and nydus with the same list of files that a start needs,
    zran without any, since it has no place for one. Nothing is cached, and between registry and agent lies the link of --link.
    Requests and bytes are those until the program has ended. The images: LAZYLAYER_FORMS, an OCI layout with the tags
    ${Object.keys(FORMS).join(', ')}.`,
  ratios: Object.values(FORMS).flatMap((name) =>
    name === BASE
      ? []
      : { metric: METRIC, of: BASE, over: name, ...(name.includes('zran') ? {} : { atLeast: AT_LEAST }) },
  ),
  async prepare(context) {
    return Object.entries(FORMS).map(([tag, name]) => ({ name, open: () => starting(context, tag) }))
  },
}

async function starting({ dir, link, defer }: Context, tag: string): Promise<() => Promise<Sample>> {
  const layout = process.env.LAZYLAYER_FORMS
  if (!layout) throw new Error('LAZYLAYER_FORMS is not set: the OCI layout that has the images')
  const image = await serveLayout(layout, tag, defer, link)
  const at = { dir: join(dir, `mnt-${tag}`), cache: join(dir, `cache-${tag}`), run: join(dir, 'run') }
  return async () => {
    await rm(at.cache, { recursive: true, force: true })
    const begin = { at: performance.now(), ...image.counters() }
    const mounted = await mountImage({ image: image.reference, ...at, rung: 'erofs' })
    try {
      // by a shell's exec: see probe.ts
      const { stdout } = await run('/bin/sh', ['-c', 'exec "$0" "$@"', 'chroot', at.dir, ...WORDS])
      if (stdout !== SAYS) throw new Error(`the program said ${stdout}`)
      const { requests, bytesDown } = image.counters()
      return {
        [METRIC]: (performance.now() - begin.at) / 1000,
        'ready s': mounted.readySeconds,
        requests: requests - begin.requests,
        'MB down': (bytesDown - begin.bytesDown) / 1e6,
      }
    } finally {
      await mounted.stop()
    }
  }
}

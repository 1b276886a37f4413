// Tars of layers, as they are scanned when a layer is read whole.
import { archive, GNU, member, pax, scan } from '../../format/tar/tar-craft.ts'
import type { Target } from '../target.ts'
import { outcomeLater } from '../well-formed.ts'

const LONG = 'long'.repeat(40)

export const tar: Target = {
  name: 'tar',
  seeds: [
    archive(
      member({ name: 'bin/', type: '5' }),
      member({ name: 'bin/large' }, 'large'.repeat(200)),
      member({ name: 'bin/linked', type: '1', linkName: 'bin/large' }),
      member({ name: 'null', type: '3', major: '0000001', minor: '0000003' }),
    ),
    archive(
      pax([
        ['path', LONG],
        ['SCHILY.xattr.user.a', 'one'],
        ['mtime', '1.5'],
      ]),
      member({}, 'file'),
    ),
    archive(member({ type: 'L', name: '././@LongLink', magic: GNU }, `${LONG}\0`), member({ magic: GNU }, 'file')),
  ],
  run: (bytes) => outcomeLater(async () => (await scan(bytes)).contents),
}

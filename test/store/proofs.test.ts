import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import { claimsJudged, type Proof, Proofs, type Refutation, readVerdict } from '../../src/store/proofs.ts'
import { folder } from './folder.ts'

const digest = (of: string) => digestOf(new TextEncoder().encode(of))
const claim = { blob: digest('blob'), tree: digest('tree') }
const proof: Proof = { verdict: 'proven', diffId: digest('tar'), tarSize: 7, split: digest('split') }
const refutation: Refutation = { ...proof, verdict: 'refuted', why: 'bin/sh: it has 7 bytes, the tar 8' }

async function cache() {
  const dir = await folder()
  await mkdir(join(dir, 'tmp'))
  const warnings: string[] = []
  const open = () => Proofs.open(dir, (each) => void warnings.push(each))
  return { dir, open, warnings }
}

test('what was found out of a layer is there for the next process, of that blob with that tree alone', async () => {
  const { open, warnings } = await cache()
  const proofs = await open()
  expect(await proofs.of(claim)).toBeUndefined()
  await proofs.keep(claim, proof)
  const lie = { ...claim, tree: digest('lie') }
  await proofs.keep(lie, refutation)
  for (const each of [proofs, await open()]) {
    expect(await each.of(claim)).toEqual(proof)
    expect(await each.of(lie)).toEqual(refutation)
    expect(await each.of({ ...claim, blob: digest('other') })).toBeUndefined()
    expect(await each.about(claim.blob)).toEqual(expect.arrayContaining([proof, refutation]))
    expect(await each.about(digest('other'))).toEqual([])
  }
  expect(warnings).toEqual([])
})

test('what is known of a layer among several is nothing of it alone, nor the other way round', async () => {
  const { dir, open } = await cache()
  const proofs = await open()
  const among = { ...claim, together: true }
  await proofs.keep(among, proof)
  expect(await (await open()).of(claim)).toBeUndefined()
  await proofs.keep(claim, refutation)
  for (const each of [proofs, await open()]) {
    expect([await each.of(among), await each.of(claim)]).toEqual([proof, refutation])
    expect([await each.about(claim.blob, true), await each.about(claim.blob)]).toEqual([[proof], [refutation]])
  }
  // nor does a record that is put in the other's place
  const [alone, other] = ['', '-together'].map((end) =>
    join('proofs', hex(claim.blob), `${hex(claim.tree)}${end}.json`),
  )
  for (const each of [dir, join(dir, 'twins')]) {
    await writeFile(join(each, `${alone}`), await readFile(join(each, `${other}`)))
  }
  expect(await (await open()).of(claim)).toBeUndefined()
})

test('a record of which nothing is left, or another claim’s, proves nothing', async () => {
  const { dir, open, warnings } = await cache()
  const path = join(dir, 'proofs', hex(claim.blob), `${hex(claim.tree)}.json`)
  const twin = join(dir, 'twins', 'proofs', hex(claim.blob), `${hex(claim.tree)}.json`)
  await (await open()).keep(claim, refutation)
  const text = await readFile(path, 'utf8')
  await (await open()).keep({ ...claim, tree: digest('other tree') }, proof)
  const other = await readFile(join(dir, 'proofs', hex(claim.blob), `${hex(digest('other tree'))}.json`), 'utf8')
  const lines = text.replaceAll(/^./gm, ' ')
  for (const damaged of ['', '{', text.replaceAll('refuted', 'proven '), lines, other, 'x'.repeat(300_000)]) {
    for (const each of [path, twin]) await writeFile(each, damaged)
    expect(await (await open()).of(claim)).toBeUndefined()
    expect(warnings.splice(0)).toEqual([expect.stringContaining(`${path} is dropped`)])
    expect(await readdir(join(dir, 'proofs', hex(claim.blob)))).toHaveLength(1)
  }
  const proofs = await open()
  await proofs.keep(claim, proof)
  expect(await proofs.of(claim)).toEqual(proof)
})

test('a verdict that lost a file or a folder is restored, also one that condemns', async () => {
  const { dir, open, warnings } = await cache()
  const lie = { ...claim, tree: digest('lie') }
  const before = await open()
  await before.keep(claim, proof)
  await before.keep(lie, refutation)
  const own = join('proofs', hex(claim.blob))
  for (const lost of ['proofs', own, `twins/${own}`, 'twins', join(own, `${hex(lie.tree)}.json`)]) {
    await rm(join(dir, lost), { recursive: true })
    expect(await claimsJudged(dir, claim.blob)).toHaveLength(2)
    expect(await readVerdict(dir, lie)).toEqual(refutation)
    const proofs = await open()
    expect(await proofs.of(lie), lost).toEqual(refutation)
    expect((await proofs.about(claim.blob)).length, lost).toBe(2)
    expect(warnings.splice(0).length, lost).toBeGreaterThan(0)
    expect(await (await open()).of(claim)).toEqual(proof)
    expect(warnings, lost).toEqual([])
  }
})

// Run after a dependency changed: node test/complete-lock.js
// A registry mirror may lack packages that are for other platforms only. npm then leaves them out of package-lock.json without a word,
// and `npm ci` refuses the lock. Their versions are fixed by the package that wants them, and their names say what they are for.
import { readFileSync, writeFileSync } from 'node:fs'

const file = new URL('../package-lock.json', import.meta.url)
const lock = JSON.parse(readFileSync(file, 'utf8'))
const EXACT = /^\d+\.\d+\.\d+$/
const CPU = {
  arm: /arm-|arm$|armv7/,
  arm64: /arm64/,
  x64: /x64/,
  ia32: /ia32/,
  ppc64: /ppc64/,
  riscv64: /riscv64/,
  s390x: /s390x/,
  wasm32: /wasm32/,
}
const OS = {
  android: /android/,
  darwin: /darwin/,
  freebsd: /freebsd/,
  linux: /linux/,
  openharmony: /openharmony/,
  win32: /win32/,
}
const LIBC = { glibc: /gnu/, musl: /musl/ }

const added = []
for (const wanting of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(wanting.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`
    if (key in lock.packages) continue
    const platform = { cpu: match(CPU, name), os: match(OS, name), libc: match(LIBC, name) }
    // Another Linux of this CPU would be installed here, if it did not say that it is for musl; anything less clear is for a person.
    if (
      !EXACT.test(version) ||
      platform.cpu === undefined ||
      (platform.os === undefined && platform.cpu[0] !== 'wasm32')
    ) {
      throw new Error(`${name}@${version} is not in the lock, and its name does not say for which platform it is`)
    }
    const { cpu, libc, os } = platform
    const fields = { version, cpu, dev: wanting.dev, libc, optional: true, os } // in npm's order
    lock.packages[key] = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
    added.push(name)
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([one], [other]) => (one < other ? -1 : 1)))
if (added.length > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`${added.length} packages added to package-lock.json`)

function match(patterns, name) {
  const found = Object.keys(patterns).find((each) => patterns[each].test(name))
  return found === undefined ? undefined : [found]
}

// What names mean for this process, for the length of a test.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'
import { onTestFinished } from 'vitest'

/** @param known by name: addresses, or the code of the error; may be changed as it goes on. @returns the names that were asked for */
export function names(known: Record<string, string[] | string>): string[] {
  const { lookup } = dns
  const asked: string[] = []
  const fake = (name: string, _options: unknown, answer: (error: Error | null, found: dns.LookupAddress[]) => void) => {
    asked.push(name)
    const meant = known[name] ?? 'ENOTFOUND'
    const error = typeof meant === 'string' ? Object.assign(new Error(`no ${name}`), { code: meant }) : null
    const found = typeof meant === 'string' ? [] : meant
    const addresses = found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
    setImmediate(() => answer(error, addresses))
  }
  dns.lookup = fake as typeof lookup
  syncBuiltinESMExports()
  onTestFinished(() => {
    dns.lookup = lookup
    syncBuiltinESMExports()
  })
  return asked
}

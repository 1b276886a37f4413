// Under which names settings may speak of an image, the most telling first (containers-policy.json(5), containers-registries.d(5)).
import { aliasesOf } from '../image/reference.ts'
import { type Named, namedText } from './signed-identity.ts'

/** Each by all names of its host, its own first: the reference itself, its repository, the namespaces above, the host, and `*.` with each domain above the host. */
export function scopes(of: Named): string[] {
  const found = aliasesOf(namedText(of))
  let name = of.name
  for (;;) {
    found.push(...aliasesOf(name))
    const slash = name.lastIndexOf('/')
    if (slash < 0) break
    name = name.slice(0, slash)
  }
  const colon = name.indexOf(':')
  let domain = colon < 0 ? name : name.slice(0, colon)
  for (let dot = domain.indexOf('.'); dot >= 0; dot = domain.indexOf('.')) {
    domain = domain.slice(dot + 1)
    found.push(`*.${domain}`)
  }
  return found
}

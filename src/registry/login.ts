// Who a user is to a registry.
import { Failure } from '../errors.ts'

/** A user name and a password. */
export interface Login {
  username: string
  password: string
}

/** A login, or an identity token that a token service turns into access tokens. */
export type Credentials = Login | { identityToken: string }

/** `user:password`. @throws Failure usage */
export function parseLogin(text: string): Login {
  const colon = text.indexOf(':')
  if (colon <= 0) {
    throw Failure.usage('--creds is not USER:PASSWORD', { fix: 'Put a colon between user name and password.' })
  }
  return { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

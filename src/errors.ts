// The one error class: what went wrong, why, and what to do about it. Callers switch on `code`, never on text.

/**
 * usage        the command line or a reference is malformed
 * missing      the registry, the layout or the tree has no such thing
 * exists       something has that name already
 * denied       the registry refuses us, or the system does
 * unsupported  valid, but not something that can be served (or served lazily)
 * corrupt      bytes differ from their digest, or an index breaks its format
 * limit        a bound on sizes, counts or depths was exceeded
 * unavailable  a peer did not answer properly after retries
 * timeout      a deadline passed
 * aborted      the caller gave up
 * system       the operating system failed a call
 */
export type Code =
  | 'usage'
  | 'missing'
  | 'exists'
  | 'denied'
  | 'unsupported'
  | 'corrupt'
  | 'limit'
  | 'unavailable'
  | 'timeout'
  | 'aborted'
  | 'system'

export interface Reason {
  /** Why, in a sentence; defaults to the cause's message. */
  why?: string
  /** What to do, in a sentence. */
  fix?: string
  cause?: unknown
}

export class Failure extends Error {
  readonly code: Code
  readonly why: string | undefined
  readonly fix: string | undefined

  constructor(code: Code, what: string, reason: Reason = {}) {
    super(what, reason.cause === undefined ? undefined : { cause: reason.cause })
    this.name = 'Failure'
    this.code = code
    this.why = reason.why ?? (reason.cause instanceof Error ? describe(reason.cause) : undefined)
    this.fix = reason.fix
  }

  static usage(what: string, reason?: Reason): Failure {
    return new Failure('usage', what, reason)
  }
  static missing(what: string, reason?: Reason): Failure {
    return new Failure('missing', what, reason)
  }
  static exists(what: string, reason?: Reason): Failure {
    return new Failure('exists', what, reason)
  }
  static denied(what: string, reason?: Reason): Failure {
    return new Failure('denied', what, reason)
  }
  static unsupported(what: string, reason?: Reason): Failure {
    return new Failure('unsupported', what, reason)
  }
  static corrupt(what: string, reason?: Reason): Failure {
    return new Failure('corrupt', what, reason)
  }
  static limit(what: string, reason?: Reason): Failure {
    return new Failure('limit', what, reason)
  }
  static unavailable(what: string, reason?: Reason): Failure {
    return new Failure('unavailable', what, reason)
  }
  static timeout(what: string, reason?: Reason): Failure {
    return new Failure('timeout', what, reason)
  }
  static aborted(what: string, reason?: Reason): Failure {
    return new Failure('aborted', what, reason)
  }
  static system(what: string, reason?: Reason): Failure {
    return new Failure('system', what, reason)
  }
}

/** An error and its causes in one line: `mount failed: registry did not answer: connect ECONNREFUSED`. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const why = error instanceof Failure ? error.why : error.cause === undefined ? undefined : describe(error.cause)
  return why === undefined ? error.message : `${error.message}: ${why}`
}

// Linux errno values (include/uapi/asm-generic/errno*.h); the same on x64 and arm64.
const ENOENT = 2
const EIO = 5
const EACCES = 13
const EINVAL = 22
const EOPNOTSUPP = 95

/** The errno a reader gets; used only where an error crosses into the kernel. Whatever is wrong with bytes is EIO. */
export function errno(error: unknown): number {
  if (!(error instanceof Failure)) return EIO
  switch (error.code) {
    case 'missing':
      return ENOENT
    case 'denied':
      return EACCES
    case 'usage':
      return EINVAL
    case 'unsupported':
      return EOPNOTSUPP
    default:
      return EIO
  }
}

/** What an aborted signal means to its caller: its own Failure (a deadline), else `aborted`. */
export function abortion(signal: AbortSignal | undefined): Failure {
  const reason: unknown = signal?.reason
  return reason instanceof Failure ? reason : Failure.aborted('the request was given up', { cause: reason })
}

/** The errno of a read(2) of a file that is there: that its bytes are not (any more) is no ENOENT. */
export function readErrno(error: unknown): number {
  return errno(error) === EACCES ? EACCES : EIO
}

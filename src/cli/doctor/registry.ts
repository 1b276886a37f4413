// Checks of the registries that may answer for an image: a line a host.
import { describe, Failure } from '../../errors.ts'
import type { Probe } from '../../registry/probe.ts'
import { type Finding, ok, problem, together, warning } from './check.ts'

export const NAME = 'registry'

/** Where no image was named. */
export const NOT_ASKED: Finding = ok('none was asked: lazylayer doctor IMAGE tries those that have an image')

/** Of an image that is no registry's. */
export const NO_REGISTRY: Finding = ok('none was asked: the image is in a folder')

/** One for each host, in the order in which they are asked; the origin is the last. */
export function registryFindings(probes: readonly Probe[]): Finding[] {
  const answers = probes.some((each) => each.failure === undefined)
  return probes.map((each, i) => {
    const origin = i === probes.length - 1
    const { host, repository } = each.endpoint
    const finding = each.failure === undefined ? reached(each) : failed(each.failure, origin, answers)
    const what = `${origin ? '' : 'mirror '}${host}/${repository}`
    // a failure may begin with the image's name
    const named = finding.found.startsWith(`${what}:`) || finding.found.startsWith(`${what}@`)
    return named ? finding : { ...finding, found: `${what}: ${finding.found}` }
  })
}

/** What registries.conf forbids, or says wrongly. */
export function notAsked(error: unknown): Finding {
  const fix = error instanceof Failure ? error.fix : undefined
  return problem(describe(error), fix ?? 'Repair registries.conf, or name another image.')
}

const STANDING: Readonly<Record<Probe['standing'], string>> = {
  open: 'lets everybody in',
  anonymous: 'lets everybody in, with a token',
  credentials: 'takes the credentials',
  refused: 'does not let us in',
}

function reached({ scheme, protocol, endpoint, standing, ranges }: Probe): Finding {
  const { host } = endpoint
  const secure = endpoint.insecure ? 'its certificate is not checked' : 'its certificate is trusted'
  const findings: Finding[] = [
    ok(protocol ?? 'connected'),
    scheme === 'http'
      ? warning('nothing is encrypted', `Have ${host} speak TLS, and take out what makes it insecure.`)
      : endpoint.insecure
        ? warning(
            secure,
            `Put its authority into /etc/containers/certs.d/${host}/ca.crt, and take out what makes it insecure.`,
          )
        : ok(secure),
    ok(STANDING[standing]),
  ]
  if (ranges === undefined) findings.push(ok('no layer is there to try a range of'))
  else findings.push(rangesFinding(ranges))
  const worst = together(findings)
  // what is well is worth saying, too
  return { ...worst, found: findings.map((each) => each.found).join(', ') }
}

function rangesFinding({ honoured, storage }: NonNullable<Probe['ranges']>): Finding {
  const through = storage === undefined ? '' : `, through a redirect to ${storage}`
  if (honoured) return ok(`ranges are honoured${through}`)
  return problem(
    `ranges are ignored${through}: no layer of it can be lazy`,
    'Put a registry or proxy before it that honours Range, or pull the image with the engine.',
  )
}

/** A mirror that fails is passed over; and so is the origin, while a mirror answers. */
function failed(failure: Failure, origin: boolean, answers: boolean): Finding {
  if (!origin && failure.code === 'missing') return ok('does not have the image')
  const found = describe(failure)
  const fix = failure.fix ?? FIX[failure.code] ?? 'See the log of the registry.'
  return answers ? warning(found, fix) : problem(found, fix)
}

const FIX: Partial<Record<Failure['code'], string>> = {
  missing: 'Check the name and the tag of the image.',
  unavailable: 'Check its name and the network.',
  timeout: 'Check the network, and what stands before the registry.',
  corrupt: 'What it answers is not what its digest says: push the image again, or ask who runs it.',
}

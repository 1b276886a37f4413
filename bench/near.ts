// The same image as `image.ts` serves, but by nginx, TLS and HTTP/2 and all, and with no link between: where what serves must not be what limits.
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { selfSigned } from '../src/build/certificate.ts'
import { layoutShelf } from '../src/build/registry.ts'
import { hex } from '../src/image/digest.ts'
import { program } from '../test/e2e/engines/needs.ts'
import { answers, end, freePort, start } from '../test/e2e/engines/registry.ts'
import type { Context } from './case.ts'
import { layersOf, NAMED, REPOSITORY, type Served } from './image.ts'

/** @param layout an OCI layout @throws where nginx is not installed */
export async function serveNear(
  layout: string,
  tag: string,
  { dir, defer }: Pick<Context, 'dir' | 'defer'>,
): Promise<Served> {
  const found = await layoutShelf(layout).manifest(REPOSITORY, tag)
  if (found === undefined) throw new Error(`no image in ${layout} is tagged ${tag}`)
  const path = await mkdtemp(join(dir, 'near-'))
  const certificate = await selfSigned(['127.0.0.1', NAMED])
  const port = await freePort()
  const at = {
    certificate: join(path, 'cert'),
    key: join(path, 'key'),
    log: join(path, 'log'),
    conf: join(path, 'conf'),
  }
  await writeFile(at.certificate, certificate.cert)
  await writeFile(at.key, certificate.key)
  const manifest = { tag, digest: found.digest, mediaType: found.mediaType }
  await writeFile(at.conf, configuration({ path, port, layout, manifest, ...at }))
  const serve = () => start(program('nginx'), ['-c', at.conf, '-p', path], () => answers(port))
  let nginx: ChildProcess = await serve()
  defer(() => end(nginx))
  return {
    reference: `docker://127.0.0.1:${port}/${REPOSITORY}:${tag}`,
    origin: `https://127.0.0.1:${port}`,
    repository: REPOSITORY,
    tag,
    layers: await layersOf(layout, tag),
    certificate: certificate.cert,
    link: {
      cut: () => end(nginx),
      async mend() {
        nginx = await serve()
      },
    },
    counters() {
      const bytes = readFileSync(at.log, 'utf8').trimEnd().split('\n').filter(Boolean).map(Number)
      return { requests: bytes.length, bytesDown: bytes.reduce((sum, each) => sum + each, 0) }
    },
  }
}

interface Configured {
  path: string
  port: number
  layout: string
  manifest: { tag: string; digest: `sha256:${string}`; mediaType: string }
  certificate: string
  key: string
  log: string
}

function configuration({ path, port, layout, manifest, certificate, key, log }: Configured): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (use) => `${use}_temp_path ${path}/${use};`,
  )
  const v2 = `/v2/${REPOSITORY}`
  return `daemon off;
${process.geteuid?.() === 0 ? 'user root;' : ''}
worker_processes 1;
pid ${path}/pid;
error_log stderr error;
events { worker_connections 512; }
http {
  ${temporary.join('\n  ')}
  log_format sent '$bytes_sent';
  access_log ${log} sent;
  keepalive_requests 1000000;
  server {
    listen 127.0.0.1:${port} ssl http2;
    ssl_certificate ${certificate};
    ssl_certificate_key ${key};
    location = /v2/ { return 200; }
    location ~ ^${v2}/manifests/(${manifest.tag}|${manifest.digest})$ {
      default_type ${manifest.mediaType};
      add_header docker-content-digest ${manifest.digest};
      alias ${layout}/blobs/sha256/${hex(manifest.digest)};
    }
    location ~ ^${v2}/blobs/sha256:([0-9a-f]+)$ {
      default_type application/octet-stream;
      alias ${layout}/blobs/sha256/$1;
    }
  }
}
`
}

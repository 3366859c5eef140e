/** The built OHIF viewer in front of a running server, as a hospital's reverse proxy would put it there. */

import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer, request, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';

/** Nothing but the address of the data source differs from what OHIF ships. */
const CONFIG = {
  routerBasename: '/',
  extensions: [],
  modes: [],
  showStudyList: true,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'ictus',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'ictus',
      configuration: {
        friendlyName: 'ictus',
        name: 'ictus',
        wadoUriRoot: '/dicom-web/wado',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};

const TYPES: Record<string, string> = {
  '.css': 'text/css',
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

/** What a proxy passes on: the server must not take the page's own address for another site's. */
function passedOn(headers: IncomingHttpHeaders, host: string): IncomingHttpHeaders {
  const kept = Object.entries(headers).filter(
    ([name]) => !name.startsWith('sec-') && name !== 'origin' && name !== 'referer',
  );
  return { ...Object.fromEntries(kept), host };
}

/** Starts it; answers the server and its address. */
export async function ohif(upstream: string): Promise<{ server: Server; url: string }> {
  const folder = process.env.ICTUS_OHIF ?? '';
  if (!existsSync(join(folder, 'index.html')))
    throw new Error(
      'Set ICTUS_OHIF to the built OHIF viewer: `make setup` puts it in target/ohif/package/dist.',
    );
  const { hostname, port, host } = new URL(upstream);
  const server = createServer((asked, answer) => {
    const { pathname } = new URL(asked.url ?? '/', 'http://localhost');
    if (pathname.startsWith('/dicom-web')) {
      const headers = passedOn(asked.headers, host);
      const passed = request({ hostname, port, path: asked.url, method: asked.method, headers }, (from) => {
        answer.writeHead(from.statusCode ?? 502, from.headers);
        from.pipe(answer);
      });
      passed.on('error', () => answer.destroy());
      asked.pipe(passed);
      return;
    }
    if (pathname === '/app-config.js') {
      answer.writeHead(200, { 'content-type': 'text/javascript' });
      answer.end(`window.config = ${JSON.stringify(CONFIG)};`);
      return;
    }
    const wanted = join(folder, normalize(pathname));
    const file = existsSync(wanted) && statSync(wanted).isFile() ? wanted : join(folder, 'index.html');
    answer.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
    answer.end(readFileSync(file));
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

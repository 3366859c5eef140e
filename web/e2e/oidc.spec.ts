import { createHash, createSign, generateKeyPairSync } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { messages } from '../src/ui/messages.ts';
import { axe, launch, open, picture, server, single, worklist } from './browser.ts';

/** Where the server under test expects its provider. */
const ISSUER = process.env.ICTUS_OIDC ?? '';
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

let browser: Browser;
let provider: Server;
/** What the provider says that the person may do. */
let roles = ['Reporting'];
const codes = new Map<string, { nonce: string; challenge: string }>();

const base64 = (value: object | string) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

async function bodyOf(request: IncomingMessage): Promise<URLSearchParams> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return new URLSearchParams(text);
}

function idToken(nonce: string): string {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: ISSUER, aud: 'ictus', sub: '7', iat: now, exp: now + 60, nonce, roles };
  const person = { preferred_username: 'berta', name: 'Dr. Berta Beispiel' };
  const signed = `${base64({ alg: 'RS256', kid: 'k' })}.${base64({ ...claims, ...person })}`;
  return `${signed}.${createSign('RSA-SHA256').update(signed).sign(privateKey).toString('base64url')}`;
}

/** A provider with one person, who says yes by a click. */
async function answer(request: IncomingMessage): Promise<{ json?: object; html?: string }> {
  const url = new URL(request.url ?? '/', ISSUER);
  if (url.pathname === '/.well-known/openid-configuration') {
    return {
      json: {
        issuer: ISSUER,
        authorization_endpoint: `${ISSUER}/authorize`,
        token_endpoint: `${ISSUER}/token`,
        jwks_uri: `${ISSUER}/jwks`,
        response_types_supported: ['code'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['RS256'],
      },
    };
  }
  if (url.pathname === '/jwks')
    return {
      json: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', use: 'sig', alg: 'RS256' }] },
    };
  if (url.pathname === '/authorize') {
    const asked = (name: string) => url.searchParams.get(name) ?? '';
    codes.set('c', { nonce: asked('nonce'), challenge: asked('code_challenge') });
    const back = `${asked('redirect_uri')}?${new URLSearchParams({ code: 'c', state: asked('state') })}`;
    return { html: `<title>Hospital</title><a href="${back.replaceAll('&', '&amp;')}">I am Berta</a>` };
  }
  const form = await bodyOf(request);
  const held = codes.get(form.get('code') ?? '');
  const proof = createHash('sha256')
    .update(form.get('code_verifier') ?? '')
    .digest('base64url');
  if (held?.challenge !== proof) throw new Error('the verifier is not that of the challenge');
  return { json: { access_token: 'a', token_type: 'Bearer', id_token: idToken(held.nonce) } };
}

beforeAll(async () => {
  if (!ISSUER) throw new Error('Set ICTUS_OIDC to the issuer that the server expects, see e2e/README.md.');
  provider = createServer((request, response) => {
    answer(request).then(
      ({ json, html }) => {
        response.setHeader('Content-Type', json ? 'application/json' : 'text/html');
        response.end(json ? JSON.stringify(json) : html);
      },
      (error: unknown) => {
        response.statusCode = 500;
        response.end(String(error));
      },
    );
  });
  await new Promise<void>((ready) => provider.listen(Number(new URL(ISSUER).port), '127.0.0.1', ready));
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  provider?.close();
});

it('signs somebody in at the provider, who gives a verdict in their own name', async () => {
  const { context, page, errors } = await open(browser);
  const uid = single(await worklist(), 'not_flagged');
  await page.goto(`${server()}/study/${uid}`);
  await page.locator('.masthead').getByRole('button', { name: messages.signIn.title }).click();
  const link = page.getByRole('link', { name: messages.signIn.at('Hospital') });
  await link.waitFor();
  // What can be pressed can be seen.
  const dialog = await page.getByRole('dialog').boundingBox();
  const enter = await page
    .getByRole('dialog')
    .getByRole('button', { name: messages.signIn.enter })
    .boundingBox();
  if (dialog === null || enter === null) throw new Error('The dialog or its button is not there.');
  expect(enter.x + enter.width).toBeLessThanOrEqual(dialog.x + dialog.width);
  expect(enter.y + enter.height).toBeLessThanOrEqual(dialog.y + dialog.height);
  expect(await axe(page)).toEqual([]);
  await picture(page, 'sign-in');
  await link.click();
  await page.getByRole('link', { name: 'I am Berta' }).click();
  // Back where it began, as somebody.
  await page.waitForURL((to) => to.pathname === `/study/${uid}`);
  await page.locator('.masthead .who', { hasText: 'Dr. Berta Beispiel' }).waitFor();
  await page.locator('[data-part=verdicts]').waitFor();
  await page.keyboard.press('s');
  await page.locator('[data-part=verdicts]').getByText('Dr. Berta Beispiel').first().waitFor();
  await page.goto(`${server()}/study/${uid}/trail`);
  await page.locator('tr[data-act=verdict]', { hasText: 'berta@127.0.0.1' }).first().waitFor();
  expect(errors).toEqual([]);
  await context.close();
});

it('says why somebody without a role is not let in', async () => {
  roles = ['Cafeteria'];
  const { context, page } = await open(browser);
  await page.goto(`${server()}/api/session/oidc`);
  await page.getByRole('link', { name: 'I am Berta' }).click();
  await page.getByText(messages.signIn.refused.role ?? '').waitFor();
  expect(await axe(page)).toEqual([]);
  expect(await page.locator('.masthead .who').textContent()).not.toContain('Berta');
  roles = ['Reporting'];
  await context.close();
});

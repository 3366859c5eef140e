/** Who sits at this page: a person who signed in, or whoever the server takes us for. */

import { createSignal } from 'solid-js';
import { ApiError, json, request } from './client.ts';
import { enterKey } from './key.ts';
import type { Who } from './model.ts';

const [who, setWho] = createSignal<Who | null>(null);
/** Whether the reader asked for the sign-in form. */
const [signingIn, setSigningIn] = createSignal(false);

export { setSigningIn, signingIn, who };

/** Whether the person here may give verdicts. */
export const mayJudge = () => who()?.person === true && who()?.role === 'radiologist';

/** Asks the server who we are. A server that is not there has not forgotten us. */
export async function loadWho(): Promise<void> {
  try {
    setWho(await json<Who>('/api/session'));
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 0)) setWho(null);
  }
}

/** Signs in; throws `ApiError` with the server's sentence when that fails. */
export async function signIn(name: string, password: string): Promise<void> {
  const body = JSON.stringify({ name, password });
  const answer = await request(
    '/api/session',
    'application/json',
    { method: 'POST', body, headers: { 'Content-Type': 'application/json' } },
    'sign-in',
  );
  setWho((await answer.json()) as Who);
  setSigningIn(false);
  // Whatever was refused is loaded again, now with the cookie.
  enterKey('');
}

/** How people can sign in, beside name and password. */
export function getWays(): Promise<{ oidc: string | null }> {
  return json('/api/session/ways');
}

/** The way to the OpenID provider and back to this page. */
export function providerPath(): string {
  return `/api/session/oidc?${new URLSearchParams({ return: location.pathname + location.search })}`;
}

/** Follows a signed link and answers the study that it opens; throws `ApiError` with the server's sentence. */
export async function followLink(query: string): Promise<string> {
  const answer = await request(
    '/api/session/link',
    'application/json',
    { method: 'POST', body: JSON.stringify({ query }), headers: { 'Content-Type': 'application/json' } },
    'sign-in',
  );
  const { study_instance_uid: study } = (await answer.json()) as { study_instance_uid: string };
  await loadWho();
  // The events were refused until now.
  enterKey('');
  return study;
}

export async function signOut(): Promise<void> {
  await request('/api/session', 'application/json', { method: 'DELETE' }).catch((_: ApiError) => undefined);
  await loadWho();
}

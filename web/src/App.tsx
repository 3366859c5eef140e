/** The frame of every page: name, connection, disclaimer, key prompt. */

import { createEffect, createSignal, ErrorBoundary, lazy, Match, Show, Suspense, Switch } from 'solid-js';
import { getVersion, sentence } from './api/client.ts';
import { keyVersion, keyWanted } from './api/key.ts';
import { connected, startLive } from './live.ts';
import { loadWho, setSigningIn, signingIn, signOut, who } from './api/session.ts';
import { figuresPath, follow, isFigures, isOpening, studyUid, trailUid, worklistPath } from './router.ts';
import { Outbox } from './review/Outbox.tsx';
import { startOutbox } from './review/outbox.ts';
import { messages } from './ui/messages.ts';
import { SignIn } from './ui/SignIn.tsx';
import { Trouble } from './ui/Trouble.tsx';
import { OpenPage } from './worklist/OpenPage.tsx';
import { WorklistPage } from './worklist/WorklistPage.tsx';

// The viewer is megabytes; the worklist must not wait for it.
const StudyPage = lazy(() => import('./viewer/StudyPage.tsx'));
const FiguresPage = lazy(() => import('./figures/FiguresPage.tsx'));
const TrailPage = lazy(() => import('./review/TrailPage.tsx'));

export function App() {
  const [version, setVersion] = createSignal('');
  const code = new URLSearchParams(location.search).get('sign-in');
  const refusal = () =>
    code === null || who()?.person ? null : (messages.signIn.refused[code] ?? messages.errors.unknown);
  startLive();
  startOutbox();
  createEffect(() => {
    keyVersion();
    void loadWho();
    getVersion().then(
      (known) => setVersion(known.version),
      () => setVersion(''),
    );
  });
  return (
    <>
      <a class="skip" href="#content">
        {messages.skip}
      </a>
      <header class="masthead">
        <a class="brand" href={worklistPath()} onClick={follow}>
          <img src="/icon.svg" alt="" width="26" height="26" />
          {messages.title}
          <span class="version num">{version()}</span>
        </a>
        <p class="disclaimer" role="note">
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <path d="M8 1.5 15 14H1zM8 6v4M8 11.6v.8" />
          </svg>
          {messages.disclaimer}
        </p>
        <a class="to-figures" href={figuresPath()} onClick={follow}>
          {messages.figures.open}
        </a>
        <p class="who">
          <Show
            when={who()?.person}
            fallback={
              <>
                <Show when={who()?.role === 'link'}>
                  <span class="by-link">{messages.open.byLink} </span>
                </Show>
                <button type="button" class="small" onClick={() => setSigningIn(true)}>
                  {messages.signIn.title}
                </button>
              </>
            }
          >
            <span title={who()?.role}>{who()?.display_name}</span>{' '}
            <button type="button" class="small" onClick={() => void signOut()}>
              {messages.signIn.out}
            </button>
          </Show>
        </p>
        <p class="connection" data-lost={!connected()} role="status">
          {connected() ? messages.connection.live : messages.connection.lost}
        </p>
      </header>
      <Show when={refusal()} keyed>
        {(text) => <Trouble text={text} />}
      </Show>
      <Outbox />
      <main id="content">
        <Switch fallback={<WorklistPage />}>
          <Match when={isOpening()}>
            <OpenPage />
          </Match>
          <Match when={isFigures()}>
            <Suspense fallback={<p class="wait">{messages.figures.loading}</p>}>
              <FiguresPage />
            </Suspense>
          </Match>
          <Match when={trailUid()} keyed>
            {(uid) => (
              <Suspense fallback={<p class="wait">{messages.trail.loading}</p>}>
                <TrailPage uid={uid} />
              </Suspense>
            )}
          </Match>
          <Match when={studyUid()} keyed>
            {(uid) => (
              <ErrorBoundary
                fallback={(error) => <Trouble text={sentence(error)} retry={() => location.reload()} />}
              >
                <Suspense fallback={<p class="wait">{messages.study.loading}</p>}>
                  <StudyPage uid={uid} />
                </Suspense>
              </ErrorBoundary>
            )}
          </Match>
        </Switch>
      </main>
      <Show when={keyWanted() || signingIn()}>
        <SignIn needed={keyWanted()} onClose={() => setSigningIn(false)} />
      </Show>
    </>
  );
}

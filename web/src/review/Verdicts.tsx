/** What readers said of the answer and of each finding, and the buttons with which to say it. */

import { For, Show } from 'solid-js';
import type { Word } from '../api/model.ts';
import { mayJudge, setSigningIn } from '../api/session.ts';
import { moment } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import type { Desk } from './desk.ts';

const said = messages.review;

/** The buttons for one finding, or for the whole with `null`. */
export function VerdictButtons(props: { desk: Desk; finding: string | null; label: string }) {
  const words: Word[] = ['accept', 'reject', 'unsure'];
  const given = () => props.desk.current(props.finding);
  return (
    <div
      class="verdict"
      role="group"
      aria-label={said.group(props.label)}
      data-verdict-of={props.finding ?? ''}
    >
      <For each={words}>
        {(word) => (
          <button
            type="button"
            class="small"
            aria-pressed={given()?.verdict === word}
            disabled={props.desk.busy()}
            data-verdict={word}
            onClick={() => void props.desk.give(props.finding, word)}
          >
            {props.finding === null ? said.whole[word] : said.words[word]}
          </button>
        )}
      </For>
      <Show when={props.finding === null}>
        <button
          type="button"
          class="small"
          aria-pressed={given()?.verdict === 'missed'}
          disabled={props.desk.busy()}
          data-verdict="missed"
          onClick={() => void props.desk.give(null, 'missed')}
        >
          {said.words.missed}
        </button>
      </Show>
    </div>
  );
}

export function Verdicts(props: { desk: Desk }) {
  return (
    <section data-part="verdicts">
      <h2>{said.title}</h2>
      <VerdictButtons desk={props.desk} finding={null} label={said.wholeStudy} />
      <Show when={!mayJudge()}>
        <p class="dim">
          {said.signInFirst}{' '}
          <button type="button" class="small" onClick={() => setSigningIn(true)}>
            {messages.signIn.title}
          </button>
        </p>
      </Show>
      <Show when={props.desk.trouble()} keyed>
        {(text) => (
          <p class="notice" role="alert">
            {text}
          </p>
        )}
      </Show>
      <Show when={props.desk.verdicts().length > 0} fallback={<p class="dim">{said.none}</p>}>
        <ol class="verdicts">
          <For each={props.desk.verdicts()}>
            {(verdict) => (
              <li>
                <b>{verdict.reader}</b> {said.sentence(verdict.verdict, verdict.finding)}
                <Show when={verdict.reason} keyed>
                  {(reason) => <> ({said.reasons[reason] ?? reason})</>}
                </Show>
                <Show when={verdict.note} keyed>
                  {(note) => <q>{note}</q>}
                </Show>
                <small class="num">{moment(verdict.at)}</small>
              </li>
            )}
          </For>
        </ol>
      </Show>
    </section>
  );
}

/** `/study/{uid}/trail`: everything that was done with one study, by whom, to be read and printed. */

import { createResource, For, Show } from 'solid-js';
import { json, sentence } from '../api/client.ts';
import { keyVersion } from '../api/key.ts';
import type { AuditEntry } from '../api/model.ts';
import { follow, studyPath } from '../router.ts';
import { moment } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { facts } from './facts.ts';

const said = messages.trail;

export default function TrailPage(props: { uid: string }) {
  const [rows, { refetch }] = createResource(
    () => [props.uid, keyVersion()] as const,
    ([uid]) => json<AuditEntry[]>(`/api/studies/${encodeURIComponent(uid)}/audit`),
  );
  document.title = `${said.title} · ${messages.title}`;
  return (
    <div class="trail">
      <p>
        <a class="back" href={studyPath(props.uid)} onClick={follow}>
          <span aria-hidden="true">‹ </span>
          {said.back}
        </a>
      </p>
      <h1>{said.title}</h1>
      <p class="num dim">{props.uid}</p>
      <p>{said.explain}</p>
      <Show when={rows.error as unknown} keyed>
        {(error) => <Trouble text={sentence(error)} retry={() => void refetch()} />}
      </Show>
      <Show when={!rows.error && rows()} keyed>
        {(entries) => (
          <table>
            <thead>
              <tr>
                <For each={[said.number, said.when, said.who, said.what, said.particulars, said.hash]}>
                  {(title) => <th scope="col">{title}</th>}
                </For>
              </tr>
            </thead>
            <tbody>
              <For each={entries}>
                {(row) => (
                  <tr data-act={row.act}>
                    <td class="num">{row.seq}</td>
                    <td class="num">
                      <time dateTime={row.at}>{moment(row.at)}</time>
                    </td>
                    <td>{row.principal}</td>
                    <td>{said.acts[row.act] ?? row.act}</td>
                    <td>
                      <dl class="facts">
                        <For each={facts(row.detail)}>
                          {([name, value]) => (
                            <>
                              <dt>{name}</dt>
                              <dd>{value}</dd>
                            </>
                          )}
                        </For>
                      </dl>
                    </td>
                    <td>
                      <code title={row.hash}>{row.hash.slice(0, 12)}…</code>
                    </td>
                  </tr>
                )}
              </For>
            </tbody>
          </table>
        )}
      </Show>
    </div>
  );
}

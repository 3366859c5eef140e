/** `/open?study=UID` and `/open?accession=NUMBER`: from another system's link to the study, or to words why not. */

import { createEffect, createSignal, For, Show } from 'solid-js';
import { getStudy, getWorklist, sentence } from '../api/client.ts';
import { followLink } from '../api/session.ts';
import { keyVersion, keyWanted } from '../api/key.ts';
import type { Study } from '../api/model.ts';
import { follow, replace, studyPath } from '../router.ts';
import { dicomDate, personName } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';

const said = messages.open;
/** More studies of one accession number than this are a mistake. */
const MOST = 50;

export function OpenPage() {
  const [studies, setStudies] = createSignal<Study[]>([]);
  const [trouble, setTrouble] = createSignal<string | null>(null);

  const find = async () => {
    const query = new URLSearchParams(location.search);
    const [study, accession] = [query.get('study'), query.get('accession')];
    setTrouble(null);
    try {
      if (query.has('signature')) {
        replace(studyPath(await followLink(location.search.slice(1))));
      } else if (study !== null) {
        replace(studyPath((await getStudy(study)).study_instance_uid));
      } else if (accession !== null && accession !== '') {
        const found = await getWorklist(new URLSearchParams({ q: accession }).toString(), 0, MOST);
        // The search takes any text that holds the number; a link means the number itself.
        const same = found.studies.filter((s) => s.accession_number === accession);
        const [only] = same;
        if (only === undefined) setTrouble(said.none(accession));
        else if (same.length === 1) replace(studyPath(only.study_instance_uid));
        else setStudies(same);
      } else setTrouble(said.nothing);
    } catch (error) {
      setTrouble(keyWanted() ? null : sentence(error));
    }
  };
  createEffect(() => {
    // A signed link is its own key, and is followed once.
    if (!location.search.includes('signature=')) keyVersion();
    void find();
  });

  return (
    <div class="worklist">
      <h1>{said.title}</h1>
      <Show when={trouble()} keyed fallback={<p class="wait">{said.looking}</p>}>
        {(text) => <Trouble text={text} retry={find} />}
      </Show>
      <Show when={studies().length > 0}>
        <p>{said.several}</p>
        <ul>
          <For each={studies()}>
            {(study) => (
              <li>
                <a href={studyPath(study.study_instance_uid)} onClick={follow}>
                  {personName(study.patient_name)} {dicomDate(study.study_date)} {study.study_description}
                </a>
              </li>
            )}
          </For>
        </ul>
      </Show>
    </div>
  );
}

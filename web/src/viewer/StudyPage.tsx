/** `/study/{uid}`: the original slices of the chosen series, with what the analysis said about them. */

import { batch, createEffect, createMemo, createSignal, For, on, onCleanup, Show, untrack } from 'solid-js';
import { getStudy, sentence } from '../api/client.ts';
import { keyVersion, keyWanted } from '../api/key.ts';
import type { StudyDetail } from '../api/model.ts';
import { seriesMetadata } from '../dicomweb/client.ts';
import { stack } from '../dicomweb/geometry.ts';
import { onLive } from '../live.ts';
import { createDesk } from '../review/desk.ts';
import { DrawBar } from '../review/DrawBar.tsx';
import { createMasks } from '../review/masks.ts';
import { createPresence } from '../review/presence.ts';
import { ReasonDialog } from '../review/ReasonDialog.tsx';
import { follow, go, studyPath, trailPath, worklistPath } from '../router.ts';
import { Badge } from '../ui/Badge.tsx';
import { clock, dicomDate, dicomTime, personName } from '../ui/format.ts';
import { Help } from '../ui/Help.tsx';
import { onKeys } from '../ui/keyboard.ts';
import { messages } from '../ui/messages.ts';
import { Trouble } from '../ui/Trouble.tsx';
import { Loader, NO_OVERLAYS } from './overlays.ts';
import { Panel } from './Panel.tsx';
import { isRulerKey } from './Measures.tsx';
import { firstSeries } from './series.ts';
import { createSession } from './session.ts';
import { Viewer } from './Viewer.tsx';
import { viewerKey } from './viewer_keys.ts';

const GATHER_MS = 250;

export default function StudyPage(props: { uid: string }) {
  const [study, setStudy] = createSignal<StudyDetail | null>(null);
  const [trouble, setTrouble] = createSignal<string | null>(null);
  const [imageTrouble, setImageTrouble] = createSignal<string | null>(null);
  const [leftOut, setLeftOut] = createSignal(0);
  const [picked, setPicked] = createSignal<string | null>(null);
  const [announced, setAnnounced] = createSignal('');
  const [help, setHelp] = createSignal(false);
  const [loader, setLoader] = createSignal<Loader | null>(null);
  const session = createSession(study, setPicked);
  const desk = createDesk(study);
  const masks = createMasks(study, session);
  const others = createPresence(
    untrack(() => props.uid),
    () => session.pencil.drawing() !== null,
  );
  let gathering: ReturnType<typeof setTimeout> | undefined;

  // Cornerstone is fetched while the study is, not after it.
  void import('./stack.ts').catch(() => undefined);

  let loads = 0;
  const load = async () => {
    const mine = ++loads;
    try {
      const next = await getStudy(props.uid);
      // An answer that was overtaken by a later request is old.
      if (mine !== loads) return;
      const before = study()?.analysis;
      setStudy(next);
      setTrouble(null);
      void desk.load();
      void masks.load();
      if (before && next.analysis && before.id !== next.analysis.id) {
        setAnnounced(messages.study.revised(next.analysis.revision));
      }
    } catch (error) {
      setTrouble(keyWanted() ? null : sentence(error));
    }
  };
  createEffect(() => {
    keyVersion();
    void load();
  });
  onLive((event) => {
    if (event !== 'reload' && event.study_instance_uid !== props.uid) return;
    if (event !== 'reload' && event.state === study()?.state && event.progress) {
      const { progress } = event;
      setStudy((now) => now && { ...now, progress });
      return;
    }
    clearTimeout(gathering);
    gathering = setTimeout(load, GATHER_MS);
  });
  onCleanup(() => clearTimeout(gathering));

  const name = () => personName(study()?.patient_name ?? null);
  createEffect(() => {
    document.title = `${study() ? name() : messages.study.loading} · ${messages.title}`;
  });

  /** The series to show: the reader's pick, else the first that is worth a look. */
  const series = createMemo(() => {
    const known = study();
    return picked() ?? (known && firstSeries(known));
  });
  /** Grows when images are added, so that late slices are shown. */
  const imageCount = createMemo(
    () => study()?.series.find((s) => s.series_instance_uid === series())?.instance_count ?? 0,
  );

  createEffect(
    on([series, imageCount, keyVersion], ([uid]) => {
      if (uid === null) return;
      let current = true;
      onCleanup(() => {
        current = false;
      });
      seriesMetadata(props.uid, uid).then(
        (metadata) => {
          if (!current) return;
          const { slices, leftOut: others } = stack(metadata);
          batch(() => {
            setLeftOut(others);
            setImageTrouble(slices.length === 0 ? messages.study.noSeries : null);
            session.use(uid, slices);
          });
        },
        (error) => current && setImageTrouble(keyWanted() ? null : sentence(error)),
      );
    }),
  );

  const analysisId = createMemo(() => study()?.analysis?.id ?? null);
  createEffect(
    on([analysisId, session.slices], ([, slices]) => {
      const analysis = study()?.analysis;
      const series = session.series();
      session.setOverlays(NO_OVERLAYS);
      if (!analysis || series === null || slices.length === 0) return void setLoader(null);
      const next = new Loader(props.uid, analysis, series, slices, session.setOverlays);
      onCleanup(() => next.close());
      void next.start();
      setLoader(next);
    }),
  );
  // Further maps are large: each is loaded when it is looked at first.
  createEffect(() => {
    const wanted = [session.uncertainty() && session.layer(), session.contours() && session.scores()];
    void loader()?.want((layer) => wanted.includes(layer));
  });

  createEffect(() => {
    if (session.anatomy()) void loader()?.wantAnatomy();
  });

  /** Agrees with the answer and goes on to the next study that nobody has read. */
  const readAndNext = async () => {
    if (desk.current(null) === null && !(await desk.give(null, 'accept'))) return;
    // Without the server the worklist still tells where to go on.
    const next = await desk.next().catch(() => null);
    go(next === null ? worklistPath() : studyPath(next));
  };
  /** What a verdict key is about: the chosen finding, or the study. */
  const subject = () => session.chosenFinding()?.id ?? null;
  onKeys((key) => {
    // While drawing, keys are the tools' and the slices'.
    if (session.pencil.drawing() !== null) return viewerKey(session, key);
    // While measuring, arrows, Enter and Escape are the ruler's.
    if (session.ruler.tool() !== null && isRulerKey(key)) return false;
    if (key === 'd' || key === 'D') masks.draw();
    else if (key === 'a' || key === 'A') void desk.give(subject(), 'accept');
    else if (key === 'x' || key === 'X') void desk.give(subject(), 'reject');
    else if (key === 's' || key === 'S') void desk.give(subject(), 'unsure');
    else if (key === 'w' || key === 'W') void desk.give(null, 'missed');
    else if (key === 'Enter') void readAndNext();
    else if (key === 'Escape') go(worklistPath());
    else if (key === '?') setHelp(true);
    else return viewerKey(session, key);
    return true;
  });

  const unsaved = () => {
    const id = analysisId();
    const waits = id !== null && session.pencil.drawing() === null && session.pencil.waits(id);
    return waits ? messages.edit.waits : '';
  };

  return (
    <div class="study">
      <div class="patient-bar">
        <a class="back" href={worklistPath()} onClick={follow}>
          <span aria-hidden="true">‹ </span>
          {messages.study.back}
        </a>
        <Show when={study()} keyed>
          {(known) => (
            <>
              <h1>{name()}</h1>
              <p class="num">
                {[
                  known.patient_id,
                  known.patient_birth_date && messages.study.born(dicomDate(known.patient_birth_date)),
                  known.patient_sex,
                ]
                  .filter(Boolean)
                  .join(' · ')}
              </p>
              <p class="num">
                {[
                  known.study_description,
                  `${dicomDate(known.study_date)} ${dicomTime(known.study_time)}`.trim(),
                  known.accession_number && messages.study.accession(known.accession_number),
                ]
                  .filter(Boolean)
                  .join(' · ')}
              </p>
              <Badge state={known.state} progress={known.progress} />
            </>
          )}
        </Show>
        <a class="trail-link" href={trailPath(props.uid)} onClick={follow}>
          {messages.trail.open}
        </a>
        <button type="button" class="keys-button" aria-keyshortcuts="?" onClick={() => setHelp(true)}>
          {messages.help.open} <kbd>?</kbd>
        </button>
      </div>
      <Show when={others().length > 0}>
        <div class="others" role="status" aria-label={messages.presence.label}>
          <For each={others()}>
            {(other) => (
              <p data-present={other.name}>
                {messages.presence.here(other.name, clock(other.since), other.drawing)}
              </p>
            )}
          </For>
        </div>
      </Show>
      <p class="announce" role="status">
        {[announced(), desk.said(), masks.said(), unsaved()].filter(Boolean).join(' ')}
      </p>
      <Show when={trouble()} keyed>
        {(text) => <Trouble text={text} retry={load} />}
      </Show>
      <Show when={study()} fallback={<p class="wait">{trouble() === null ? messages.study.loading : ''}</p>}>
        {(known) => (
          <div class="desk">
            <section class="stage" aria-label={messages.viewer.toolbar}>
              <Show
                when={session.slices().length > 0}
                fallback={
                  <p class="wait">
                    {imageTrouble() ??
                      (series() === null ? messages.study.noSeries : messages.study.loadingImages)}
                  </p>
                }
              >
                <Viewer
                  comparisons={known().comparisons}
                  study={props.uid}
                  name={name()}
                  session={session}
                  tools={
                    <Show when={session.pencil.drawing() !== null}>
                      <DrawBar
                        session={session}
                        busy={masks.busy()}
                        trouble={masks.trouble()}
                        save={() => void masks.save()}
                      />
                    </Show>
                  }
                />
              </Show>
            </section>
            <Panel
              study={known()}
              session={session}
              desk={desk}
              masks={masks}
              leftOut={leftOut()}
              imageTrouble={session.slices().length > 0 ? imageTrouble() : null}
              onPick={setPicked}
            />
          </div>
        )}
      </Show>
      <Show when={desk.pending()} keyed>
        {(pending) => <ReasonDialog desk={desk} pending={pending} />}
      </Show>
      <Show when={help()}>
        <Help keys={messages.help.study} onClose={() => setHelp(false)} />
      </Show>
    </div>
  );
}

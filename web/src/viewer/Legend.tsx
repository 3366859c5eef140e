/** What the colours over the image mean, in words. */

import { For, Show } from 'solid-js';
import { kind, structure } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { CONTOURS } from './painter.ts';
import { css, READER_COLOUR, type Rgb, structureColour, uncertaintyGradient } from './palette.ts';
import type { Session } from './session.ts';

const said = messages.viewer;

export function Legend(props: { session: Session }) {
  const kinds = () => {
    const first = new Map(props.session.here().map((f) => [f.kind, f]));
    return [...first.values()];
  };
  const byReader = () => props.session.pencil.drawing() !== null || props.session.readerMasks() !== null;
  return (
    <div class="legend">
      <Show when={props.session.mask()}>
        <Show
          when={byReader()}
          fallback={
            <Show
              when={props.session.overlays().masks.size > 0}
              fallback={<p class="dim">{messages.viewer.noMask}</p>}
            >
              <For each={kinds()}>
                {(finding) => <Swatch colour={props.session.colour(finding)} name={kind(finding.kind)} />}
              </For>
            </Show>
          }
        >
          <Swatch colour={READER_COLOUR} name={messages.draw.legend} />
        </Show>
      </Show>
      <Show when={props.session.contours() && props.session.scores() !== null}>
        <p class="dim">{said.contourNote(...CONTOURS)}</p>
      </Show>
      <Show when={props.session.anatomy() && props.session.overlays().hasAnatomy}>
        <Show
          when={props.session.structures()}
          fallback={
            <p class="dim">
              {props.session.overlays().anatomyFailed ? said.anatomyFailed : said.loadingAnatomy}
            </p>
          }
        >
          {(structures) => (
            <>
              <For each={structures()}>
                {({ segment, name }) => (
                  <Swatch colour={structureColour(name, segment)} name={structure(name)} />
                )}
              </For>
              <p class="dim">{said.anatomyNote}</p>
            </>
          )}
        </Show>
      </Show>
      <Show when={props.session.uncertainty()}>
        <Show when={props.session.layer()} keyed fallback={<p class="dim">{said.noMap}</p>}>
          {(layer) => (
            <>
              <Show
                when={props.session.overlays().maps.length > 1}
                fallback={<p>{said.quantity[layer.quantity]}</p>}
              >
                <select
                  class="map"
                  aria-label={said.maps}
                  aria-keyshortcuts="H"
                  value={layer.object.sop_instance_uid}
                  onChange={(event) => props.session.setPickedMap(event.currentTarget.value)}
                >
                  <For each={props.session.overlays().maps}>
                    {({ object, quantity }) => (
                      <option value={object.sop_instance_uid}>
                        {said.map(said.quantity[quantity], kind(object.question ?? ''))}
                      </option>
                    )}
                  </For>
                </select>
              </Show>
              <div class="bar" style={{ background: uncertaintyGradient('to right') }} />
              <p class="ends">
                <span>{said.ends[layer.quantity][0]}</span>
                <span>{said.ends[layer.quantity][1]}</span>
              </p>
              <p class="dim">{layer.frames === null ? said.loadingMap : said.mapNote[layer.quantity]}</p>
            </>
          )}
        </Show>
      </Show>
    </div>
  );
}

function Swatch(props: { colour: Rgb; name: string }) {
  return (
    <p>
      <span
        class="swatch"
        style={{ 'border-color': css(props.colour), background: css(props.colour, 0.4) }}
      />
      {props.name}
    </p>
  );
}

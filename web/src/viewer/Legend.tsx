/** What the colours over the image mean, in words. */

import { For, Show } from 'solid-js';
import { kind } from '../ui/format.ts';
import { messages } from '../ui/messages.ts';
import { css, uncertaintyGradient } from './palette.ts';
import type { Session } from './session.ts';

export function Legend(props: { session: Session }) {
  const kinds = () => {
    const first = new Map(props.session.findings().map((f) => [f.kind, f]));
    return [...first.values()];
  };
  return (
    <div class="legend">
      <Show when={props.session.mask()}>
        <Show
          when={props.session.overlays().masks.size > 0}
          fallback={<p class="dim">{messages.viewer.noMask}</p>}
        >
          <For each={kinds()}>
            {(finding) => (
              <p>
                <span
                  class="swatch"
                  style={{
                    'border-color': css(props.session.colour(finding)),
                    background: css(props.session.colour(finding), 0.4),
                  }}
                />
                {kind(finding.kind)}
              </p>
            )}
          </For>
        </Show>
      </Show>
      <Show when={props.session.uncertainty()}>
        <Show
          when={props.session.overlays().maps.size > 0}
          fallback={<p class="dim">{messages.viewer.noMap}</p>}
        >
          <p>{messages.viewer.legend}</p>
          <div class="bar" style={{ background: uncertaintyGradient('to right') }} />
          <p class="ends">
            <span>{messages.viewer.legendLow}</span>
            <span>{messages.viewer.legendHigh}</span>
          </p>
          <p class="dim">{messages.viewer.legendNote}</p>
        </Show>
      </Show>
    </div>
  );
}

// Small pieces that all views share.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { ownModels } from "../lib/api";
import { PICTURE_TYPES, type Picture } from "../lib/pictures";

export function Card(props: { title: string; wide?: boolean; third?: boolean; note?: string; children: ComponentChildren }) {
  const id = useId();
  return (
    <section class={`card${props.wide ? " wide" : ""}${props.third ? " third" : ""}`} aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        {props.note && <p class="note">{props.note}</p>}
      </header>
      {props.children}
    </section>
  );
}

// What went wrong and what to do, announced to screen readers.
export function Problem(props: { message: string }) {
  return (
    <div role="alert" class={props.message ? "problem" : ""}>
      {props.message}
    </div>
  );
}

export function Empty(props: { title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{props.title}</strong>
      <p>{props.children}</p>
    </div>
  );
}

interface Labelled {
  label: string;
  children: ComponentChildren;
}

export function Field(props: Labelled) {
  return (
    <label class="field">
      <span>{props.label}</span>
      {props.children}
    </label>
  );
}

export function Choice(props: {
  label: string;
  value: string;
  options: (string | [value: string, text: string])[];
  onChange: (value: string) => void;
}) {
  return (
    <Field label={props.label}>
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.options.map((option) => {
          const [value, text] = typeof option === "string" ? [option, option] : option;
          return (
            <option key={value} value={value}>
              {text}
            </option>
          );
        })}
      </select>
    </Field>
  );
}

export function ModelChoice(props: { value: string; onChange: (value: string) => void }) {
  const names = ownModels()
    .filter((model) => model.outputs === null || model.outputs.includes("dense"))
    .map((model) => model.id);
  const options = names.includes(props.value) || !props.value ? names : [props.value, ...names];
  return <Choice label="Model" value={props.value || names[0] || ""} options={options} onChange={props.onChange} />;
}

// How many leading values of a vector are kept; the sizes that a model was trained for lie one in another.
export function Dimensions(props: {
  value: number;
  native: number;
  trained: number[];
  label?: string;
  onInput: (value: number) => void;
}) {
  const step = props.native % 8 === 0 ? 8 : 1;
  const ticks = [...new Set([...props.trained, props.native])].sort((a, b) => a - b);
  return (
    <div class="dimensions">
      <label class="field">
        <span>
          {props.label ?? "Dimensions"} <output>{props.value}</output> of {props.native}
        </span>
        <input
          type="range"
          min={step}
          max={props.native}
          step={step}
          value={props.value}
          onInput={(event) => props.onInput(Number(event.currentTarget.value))}
        />
      </label>
      <div class="ticks">
        {ticks.map((size) => (
          <button
            type="button"
            key={size}
            class={size === props.value ? "tick now" : "tick"}
            aria-pressed={size === props.value}
            aria-label={`${size} dimensions, ${props.trained.includes(size) ? "trained" : "full"}`}
            onClick={() => props.onInput(size)}
          >
            {size}
          </button>
        ))}
        {!ticks.includes(props.value) && <span class="note">between trained sizes</span>}
      </div>
    </div>
  );
}

export function PictureFiles(props: { label: string; multiple?: boolean; onFiles: (files: File[]) => void }) {
  return (
    <Field label={props.label}>
      <input type="file" accept={PICTURE_TYPES} multiple={props.multiple} onChange={(event) => props.onFiles([...(event.currentTarget.files ?? [])])} />
    </Field>
  );
}

export function Thumbnail(props: { picture: Picture }) {
  return <img class="thumbnail" src={props.picture.url} alt={props.picture.name} title={props.picture.name} />;
}

// A table that scrolls by itself where the screen is narrow.
export function Table(props: { label: string; heads: string[]; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={props.label} tabIndex={0}>
      <table class="list">
        <thead>
          <tr>
            {props.heads.map((head) => (
              <th scope="col" key={head}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

export function Copy(props: { text: string }) {
  const done = useSignal("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(props.text);
      done.value = "Copied";
    } catch {
      done.value = "Select the text and copy it by hand: this page may not use the clipboard";
    }
    setTimeout(() => (done.value = ""), 2500);
  };
  return (
    <>
      <button type="button" class="quiet" onClick={copy}>
        Copy
      </button>
      <span class="note" role="status">
        {done}
      </span>
    </>
  );
}

// One of several texts, by tabs that arrow keys move between (WAI-ARIA's pattern).
export function Tabs(props: { label: string; texts: Record<string, string> }) {
  const names = Object.keys(props.texts);
  const chosen = useSignal(names[0]!);
  const id = useId();
  const move = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    chosen.value = names[(names.indexOf(chosen.value) + by + names.length) % names.length]!;
    document.getElementById(`${id}-${chosen.value}`)?.focus();
  };
  return (
    <div class="tabs">
      <div class="row">
        <div role="tablist" aria-label={props.label} onKeyDown={move}>
        {names.map((name) => (
          <button
            type="button"
            role="tab"
            key={name}
            id={`${id}-${name}`}
            aria-selected={name === chosen.value}
            aria-controls={`${id}-panel`}
            tabIndex={name === chosen.value ? 0 : -1}
            onClick={() => (chosen.value = name)}
          >
            {name}
          </button>
        ))}
        </div>
        <Copy text={props.texts[chosen.value]!} />
      </div>
      <pre id={`${id}-panel`} role="tabpanel" aria-labelledby={`${id}-${chosen.value}`} tabIndex={0}>
        {props.texts[chosen.value]}
      </pre>
    </div>
  );
}

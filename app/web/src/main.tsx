// The console: a page of views over the server's public API. It keeps nothing on the server.
import { useComputed } from "@preact/signals";
import { render, type ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import "./styles.css";
import { apiKey, loadModels, modelsError, needsKey, ROOT, setKey } from "./lib/api";
import { place } from "./lib/url";
import { Problem } from "./parts/basics";
import { BatchesView } from "./views/batches";
import { ChooseView } from "./views/choose";
import { KeysView } from "./views/keys";
import { LiveView } from "./views/live";
import { MapView } from "./views/map";
import { ModelsView } from "./views/models";
import { SearchView } from "./views/search";
import { TryView } from "./views/try";

const VIEWS: Record<string, [title: string, view: ComponentType]> = {
  try: ["Try", TryView],
  search: ["Search", SearchView],
  choose: ["Choose", ChooseView],
  map: ["Map", MapView],
  live: ["Live", LiveView],
  models: ["Models", ModelsView],
  batches: ["Batches", BatchesView],
  keys: ["Keys", KeysView],
};

function KeyForm() {
  const input = useRef<HTMLInputElement>(null);
  const asked = needsKey.value;
  useEffect(() => {
    if (asked) input.current?.focus();
  }, [asked]);
  return (
    <form
      class={asked ? "key-form asked" : "key-form"}
      onSubmit={(event) => {
        event.preventDefault();
        setKey(input.current!.value);
        void loadModels();
      }}
    >
      <label>
        <span class="hidden">API key</span>
        <input ref={input} type="password" autocomplete="off" placeholder="API key" defaultValue={apiKey.value} />
      </label>
      <button type="submit" class="quiet">
        {apiKey.value ? "Change key" : "Use key"}
      </button>
    </form>
  );
}

function App() {
  const name = useComputed(() => (place.value.view in VIEWS ? place.value.view : "try")).value;
  const [title, View] = VIEWS[name]!;
  useEffect(() => {
    document.title = `${title} – Nestvec`;
  }, [title]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        To the content
      </a>
      <header class="top">
        <a class="brand" href={ROOT}>
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M4 28V4h24" />
            <path d="M11 28V11h17" />
            <path d="M18 28V18h10" />
          </svg>
          Nestvec
        </a>
        <nav aria-label="Views">
          {Object.entries(VIEWS).map(([key, [text]]) => (
            <a key={key} href={`#/${key}`} aria-current={key === name ? "page" : undefined}>
              {text}
            </a>
          ))}
        </nav>
        <KeyForm />
      </header>
      <main id="main" tabIndex={-1}>
        <h1 class="hidden">{title}</h1>
        {modelsError.value && (
          <div class="wide">
            <Problem message={modelsError.value} />
          </div>
        )}
        <View />
      </main>
    </>
  );
}

void loadModels();
render(<App />, document.getElementById("root")!);

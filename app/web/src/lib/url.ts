// The state of a view is in the fragment of its URL, which browsers never send: a shared link shows the same view.
import { effect, signal } from "@preact/signals";

// Links much longer than this are cut by mail programs and chats.
const MAX_SHARED_CHARS = 6000;

export interface Place {
  view: string;
  params: URLSearchParams;
}

function read(): Place {
  const [view = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { view: view || "try", params: new URLSearchParams(query) };
}

export const place = signal<Place>(read());

window.addEventListener("hashchange", () => {
  place.value = read();
});

export function linkTo(view: string, params: Record<string, string> = {}): string {
  const query = new URLSearchParams(params).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

// Writes values into the URL without a new entry in the history; says whether all of them fitted.
export function share(view: string, values: Record<string, string>): boolean {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value) params.set(name, value);
  let fits = true;
  for (const name of [...params.keys()].sort((a, b) => params.get(b)!.length - params.get(a)!.length)) {
    if (params.toString().length <= MAX_SHARED_CHARS) break;
    params.delete(name);
    fits = false;
  }
  const query = params.toString();
  history.replaceState(null, "", `#/${view}${query ? `?${query}` : ""}`);
  return fits;
}

// What a view was opened with, if it is the first one of the page: its signals begin with it.
export function openedWith(view: string): URLSearchParams {
  return place.value.view === view ? place.value.params : new URLSearchParams();
}

// Does something when a view is opened, and again and again while it is, in a page that is seen.
export function whileOpen(view: string, everyMs: number, begin: () => void, again: () => void, end: () => void = () => undefined): void {
  let timer = 0;
  effect(() => {
    clearInterval(timer);
    if (place.value.view !== view) return end();
    begin();
    timer = window.setInterval(() => document.visibilityState === "visible" && again(), everyMs);
  });
}

// Calls of the server's public API, with the visitor's own key, and errors in words.
import { signal } from "@preact/signals";

// The page lies in console/ below the server's root, wherever a proxy has put that.
export const ROOT = new URL("..", document.baseURI).href;

const KEY = "nestvec.key";

function kept(): string {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export const apiKey = signal(kept());
// Whether the server has refused a request for want of a good key.
export const needsKey = signal(false);

export function setKey(key: string): void {
  apiKey.value = key.trim();
  needsKey.value = false;
  try {
    if (apiKey.value) sessionStorage.setItem(KEY, apiKey.value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing still has the key while the page is open.
  }
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly param: string = "",
  ) {
    super(message);
  }
}

// What an error of each status means to somebody in front of a page, where the server does not say it better.
const ADVICE: Record<number, string> = {
  401: "This server asks for a key. Enter yours at the top of the page.",
  403: "Your key may not do this. An operator can give it the right.",
  404: "This server does not offer it.",
  413: "That is more than the server takes at once. Use fewer or shorter texts.",
  429: "The server is busy, or your key has used up its rate. Wait a moment and try again.",
  503: "The server is not ready yet, or is shutting down. Try again in a few seconds.",
  504: "The server had no time to answer. Try again with fewer texts.",
};

function reason(status: number, text: string): ApiError {
  let message = "";
  let param = "";
  try {
    const body = JSON.parse(text);
    message = String(body.error?.message ?? body.message ?? body.detail ?? "");
    param = String(body.error?.param ?? "");
  } catch {
    // Not every answer is JSON: a proxy's is a page.
  }
  const advice = ADVICE[status] ?? "";
  const said = [message, status === 401 || !message ? advice : ""].filter(Boolean).join(" ");
  return new ApiError(status, said || `The server answered ${status}.`, param);
}

export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (apiKey.value) headers.set("authorization", `Bearer ${apiKey.value}`);
  let response: Response;
  try {
    response = await fetch(new URL(path, ROOT), { ...init, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached. Is it still running?");
  }
  if (response.status === 401) needsKey.value = true;
  if (!response.ok) throw reason(response.status, await response.text());
  return response;
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await call(path, { signal: signal ?? null })).json();
}

export async function postJson<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const init = { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return (await call(path, { ...init, signal: signal ?? null })).json();
}

export interface Model {
  id: string;
  root: string;
  aliases: string[];
  pinned: { prompt_name: string | null; dimensions: number | null } | null;
  state: string;
  max_model_len: number | null;
  dimensions: { native: number; range: [number, number]; trained: number[] } | null;
  outputs: string[] | null;
  input_modalities: string[] | null;
  pooling: string | null;
  prompts: string[] | null;
  space: string | null;
  architecture: string | null;
  precision: string | null;
  provider: string | null;
  license: string | null;
  languages: string[] | null;
  language_count: number | null;
  parameters: number | null;
  source: string | null;
  layers: { native: number; trained: number[]; fitted: Record<string, string> } | null;
  maps: { name: string; kind: string; dimensions: number; space: string; layers: number | null }[] | null;
  quality?: Quality | null;
}

export interface Figure {
  dimensions: number;
  dtype: string;
  layers: number;
  map: string;
  bytes: number;
  score: number;
  low: number;
  high: number;
}

export interface Quality {
  space: string;
  made_s: number;
  recommendations: { budget: number; text: string }[];
  tasks: { task: string; metric: string; n: number; figures: Figure[] }[];
}

export const models = signal<Model[]>([]);
export const modelsError = signal("");

export async function loadModels(): Promise<void> {
  try {
    const answer = await getJson<{ data: Model[] }>("v1/models");
    models.value = answer.data;
    modelsError.value = "";
  } catch (error) {
    modelsError.value = inWords(error);
  }
}

// Models by their own name or a pinned one: further names of the same thing are of no use in a list.
export function ownModels(): Model[] {
  return models.value.filter((model) => model.id === model.root || model.pinned !== null);
}

export function findModel(name: string): Model | undefined {
  const rows = models.value;
  return rows.find((model) => model.id === name) ?? rows.find((model) => model.aliases.includes(name)) ?? rows[0];
}

export function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

// Vectors of texts and pictures from the server: raw ones once, from which prefixes and dtypes are made here, and codes of int8.
import { postJson } from "./api";
import { inputOf, sizeOf, type Item } from "./pictures";
import { fromBase64, unit } from "./vectors";

export interface Options {
  model: string;
  prompt?: string;
  inputType?: string;
  layers?: number;
  map?: string;
}

export interface Embedded {
  model: string;
  vectors: Float32Array[];
  tokens: number;
  tookMs: number;
}

interface Answer {
  model: string;
  data: { embedding: string | number[] }[];
  usage: { total_tokens: number };
}

// Requests of so many texts, so that a long list shows progress and none is too large.
const MAX_INPUTS = 64;
const MAX_CHARS = 8_000_000;

export function requestBody(options: Options): Record<string, unknown> {
  const body: Record<string, unknown> = { model: options.model };
  if (options.prompt) body.prompt_name = options.prompt;
  else if (options.inputType) body.input_type = options.inputType;
  if (options.layers) body.layers = options.layers;
  if (options.map) body.map = options.map;
  return body;
}

async function inParts(
  items: Item[],
  body: Record<string, unknown>,
  decode: (value: string | number[]) => Float32Array,
  progress: (done: number) => void,
  signal?: AbortSignal,
): Promise<Embedded> {
  const started = performance.now();
  const vectors: Float32Array[] = [];
  let tokens = 0;
  let model = "";
  for (let start = 0; start < items.length; ) {
    let stop = start;
    for (let chars = 0; stop < items.length && stop < start + MAX_INPUTS; stop++) {
      chars += sizeOf(items[stop]!);
      if (chars > MAX_CHARS && stop > start) break;
    }
    const input = items.slice(start, stop).map(inputOf);
    start = stop;
    const answer = await postJson<Answer>("v1/embeddings", { ...body, input }, signal);
    for (const row of answer.data) vectors.push(decode(row.embedding));
    tokens += answer.usage.total_tokens;
    model = answer.model;
    progress(vectors.length);
  }
  return { model, vectors, tokens, tookMs: performance.now() - started };
}

// Vectors before they are scaled to unit length, so that any prefix can be made of them.
export function embedRaw(
  items: Item[],
  options: Options,
  progress: (done: number) => void = () => undefined,
  signal?: AbortSignal,
): Promise<Embedded> {
  const body = { ...requestBody(options), truncate: true, normalize: false, encoding_format: "base64" };
  return inParts(items, body, (value) => fromBase64(value as string), progress, signal);
}

export async function embedCodes(
  items: Item[],
  options: Options,
  dimensions: number,
  signal?: AbortSignal,
): Promise<Float32Array[]> {
  const body = { ...requestBody(options), truncate: true, dimensions, output_dtype: "int8" };
  const answer = await inParts(items, body, (value) => Float32Array.from(value as number[]), () => undefined, signal);
  return answer.vectors.map(unit);
}

// Models: what is served, in memory or not, in which space; loading and unloading for those who may.
import { effect, signal } from "@preact/signals";
import { ApiError, apiKey, getJson, inWords, loadModels, ownModels, postJson, type Model } from "../lib/api";
import { bytes, short } from "../lib/format";
import { linkTo, place } from "../lib/url";
import { Card, Copy, Empty, Field, Problem, Table } from "../parts/basics";

interface Row {
  model: string;
  state: string;
  graph_bytes: number;
  requests: number;
  is_kept: boolean;
  error: string | null;
}

interface CardRow {
  id: string;
  description: string | null;
  license: string | null;
  languages: string[];
  language_count: number | null;
  parameters: number | null;
  dimensions: number | null;
  trained_dimensions: number[];
  max_tokens: number | null;
}

// So many cards are shown at once; typing finds the others.
const SHOWN = 12;

const cards = signal<CardRow[]>([]);
const wanted = signal("");
const rows = signal<Row[]>([]);
const isAdmin = signal(false);
const problem = signal("");
const moving = signal("");

async function refresh(): Promise<void> {
  await loadModels();
  getJson<{ data: CardRow[] }>("v1/cards").then(
    (answer) => (cards.value = answer.data),
    () => (cards.value = []),
  );
  // These routes ask for a key always.
  if (!apiKey.value) return;
  try {
    rows.value = (await getJson<{ models: Row[] }>("admin/models")).models;
    isAdmin.value = true;
  } catch (error) {
    // Without the right, or where the server has no such routes, the view shows what everybody may see.
    isAdmin.value = false;
    if (!(error instanceof ApiError)) problem.value = inWords(error);
  }
}

effect(() => {
  if (place.value.view === "models") void refresh();
});

async function move(name: string, verb: "load" | "unload"): Promise<void> {
  moving.value = name;
  problem.value = "";
  try {
    await postJson(`admin/models/${verb}`, { model: name });
  } catch (error) {
    problem.value = inWords(error);
  }
  moving.value = "";
  await refresh();
}

export function ModelsView() {
  const own = ownModels();
  if (!own.length) return <Empty title="No models">The server serves none that this key may use.</Empty>;
  return (
    <>
      <div class="wide">
        <Problem message={problem.value} />
        {!isAdmin.value && <p class="note">Loading and unloading need a key with the admin right, on a server started with admin_api.</p>}
      </div>
      {own.map((model) => (
        <ModelCard key={model.id} model={model} row={rows.value.find((row) => row.model === model.root) ?? null} />
      ))}
      {cards.value.length > 0 && <Cards />}
    </>
  );
}

function ModelCard(props: { model: Model; row: Row | null }) {
  const { model, row } = props;
  const isAlias = model.id !== model.root;
  const facts: [string, string][] = [];
  const add = (name: string, value: unknown) => value !== null && value !== undefined && value !== "" && facts.push([name, String(value)]);
  if (isAlias)
    add(
      "stands for",
      `${model.root}${model.pinned?.dimensions ? `, ${model.pinned.dimensions} dimensions` : ""}${model.pinned?.prompt_name ? `, prompt ${model.pinned.prompt_name}` : ""}`,
    );
  if (model.dimensions) add("dimensions", `${model.dimensions.native}; trained for ${model.dimensions.trained.join(", ")}`);
  add("longest text", model.max_model_len === null ? null : `${model.max_model_len} tokens`);
  add("gives", model.outputs?.join(", "));
  add("prompts", model.prompts?.join(", "));
  if (model.layers) add("exits", [...model.layers.trained, ...Object.keys(model.layers.fitted)].join(", ") || `all ${model.layers.native} layers only`);
  add("maps", model.maps?.map((map) => `${map.name} (${map.kind})`).join(", "));
  add("kind", model.architecture && `${model.architecture}, ${model.precision}, on ${model.provider ?? "none now"}`);
  add("parameters", model.parameters && short(model.parameters));
  add("languages", model.languages?.length ? (model.languages.length > 8 ? `${model.language_count}` : model.languages.join(", ")) : null);
  add("licence", model.license);
  add("size", row?.graph_bytes ? bytes(row.graph_bytes) : null);
  add("calls now", row?.requests);
  return (
    <Card title={model.id}>
      <p class={`state ${model.state}`}>
        {model.state}
        {row?.is_kept && ", stays in memory"}
      </p>
      {row?.error && <Problem message={row.error} />}
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
        {model.space && (
          <div>
            <dt>space</dt>
            <dd>
              <code>{model.space}</code> <Copy text={model.space} />
            </dd>
          </div>
        )}
      </dl>
      <div class="row">
        <a class="button quiet" href={linkTo("try", { model: model.id })}>
          Try
        </a>
        <a class="button quiet" href={linkTo("choose", { model: model.id })}>
          What smaller vectors cost
        </a>
        {row && !isAlias && (
          <button type="button" class="quiet" disabled={moving.value !== ""} onClick={() => void move(model.root, model.state === "ready" ? "unload" : "load")}>
            {moving.value === model.root ? "Working…" : model.state === "ready" ? "Unload" : "Load"}
          </button>
        )}
      </div>
    </Card>
  );
}

function Cards() {
  const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = cards.value.filter((card) => {
    const text = [card.id, card.description, card.license, ...card.languages].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return (
    <Card title="What else could be served" wide note="Models that have a card. An operator starts one of them by its name: nestvec serve --model NAME.">
      <Field label="Search names, languages, licences">
        <input type="search" value={wanted.value} onInput={(event) => (wanted.value = event.currentTarget.value)} />
      </Field>
      <p class="note" role="status">
        {found.length} of {cards.value.length}
        {found.length > SHOWN && `, the first ${SHOWN} of them here`}
      </p>
      <Table label="Model cards" heads={["Name", "Dimensions", "Tokens", "Parameters", "Languages", "Licence"]}>
        {found.slice(0, SHOWN).map((card) => (
          <tr key={card.id}>
            <td>
              <code>{card.id}</code>
              {card.description && <p class="note">{card.description}</p>}
            </td>
            <td>
              {card.dimensions ?? "–"}
              {card.trained_dimensions.length > 0 && <span class="note"> also {card.trained_dimensions.join(", ")}</span>}
            </td>
            <td>{card.max_tokens ?? "–"}</td>
            <td>{card.parameters ? short(card.parameters) : "–"}</td>
            <td>{card.languages.length && card.languages.length <= 6 ? card.languages.join(", ") : (card.language_count ?? "–")}</td>
            <td>{card.license ?? "–"}</td>
          </tr>
        ))}
      </Table>
    </Card>
  );
}

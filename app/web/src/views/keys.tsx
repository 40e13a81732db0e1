// Keys: what one's own key has used in a month; with the admin right what all have.
import { effect, signal } from "@preact/signals";
import { apiKey, getJson, inWords } from "../lib/api";
import { count } from "../lib/format";
import { openedWith, place, share } from "../lib/url";
import { Card, Empty, Field, Problem, Table } from "../parts/basics";

interface Usage {
  key_id: string;
  name: string | null;
  month: string;
  requests: number;
  tokens: number;
  monthly_tokens: number | null;
}

const start = openedWith("keys");
const month = signal(start.get("month") ?? "");
const rows = signal<Usage[] | null>(null);
const shownMonth = signal("");
const problem = signal("");

effect(() => {
  void apiKey.value;
  const wanted = month.value;
  if (place.value.view !== "keys") return;
  share("keys", { month: wanted });
  getJson<{ month: string; data: Usage[] }>(`v1/usage${wanted ? `?month=${wanted}` : ""}`).then(
    (answer) => {
      rows.value = answer.data;
      shownMonth.value = answer.month;
      problem.value = "";
    },
    (error) => {
      rows.value = null;
      problem.value = inWords(error);
    },
  );
});

export function KeysView() {
  return (
    <Card title="Usage" wide note="A key sees its own usage, one with the admin right that of all. Keys themselves are never shown.">
      <div class="row">
        <Field label="Month">
          <input type="month" value={month.value || shownMonth.value} onChange={(event) => (month.value = event.currentTarget.value)} />
        </Field>
      </div>
      <Problem message={problem.value} />
      {rows.value?.length === 0 && (
        <Empty title="No usage to show">
          This server asks for no key, so nothing is counted by key. `nestvec keys create` makes the first one; from then on every caller needs one.
        </Empty>
      )}
      {rows.value && rows.value.length > 0 && (
        <Table label="Usage of keys" heads={["Key", "Requests", "Tokens", "Of the month's"]}>
          {rows.value.map((row) => (
            <tr key={row.key_id}>
              <td>
                {row.name ?? ""} <code>{row.key_id}</code>
              </td>
              <td>{count(row.requests)}</td>
              <td>{count(row.tokens)}</td>
              <td>
                {row.monthly_tokens === null ? (
                  "no limit"
                ) : (
                  <>
                    <progress value={row.tokens} max={row.monthly_tokens || 1} aria-label="Share of the month's tokens" /> {count(row.monthly_tokens)}
                  </>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

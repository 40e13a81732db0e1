// A matrix of cosines as a table: every figure can be read, by eyes, by screen readers and by copying.
import { signal } from "@preact/signals";

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = signal(dark.matches);
dark.addEventListener("change", () => (isDark.value = dark.matches));

// From which share of the hue on a cell is nearer to its text's other colour: there both contrasts are about 4.6.
const TURN = { light: { positive: 84, negative: 91 }, dark: { positive: 61, negative: 68 } };

// Colours run from one hue below zero over the surface to another at one.
export function shade(value: number): { background: string; color: string } {
  const strength = Math.round(Math.min(Math.abs(value), 1) * 100);
  const sign = value < 0 ? "negative" : "positive";
  const isStrong = strength > TURN[isDark.value ? "dark" : "light"][sign];
  return {
    background: `color-mix(in oklab, var(--${sign}) ${strength}%, var(--surface))`,
    color: isStrong !== isDark.value ? "#fff" : "#000",
  };
}

export function HeatMap(props: {
  rows: string[];
  columns: string[];
  values: number[][];
  caption: string;
  scale?: number;
  corner?: string;
}) {
  const scale = props.scale ?? 1;
  return (
    <div class="scroll" role="region" aria-label={props.caption} tabIndex={0}>
      <table class="heat">
        <caption class="hidden">{props.caption}</caption>
        <thead>
          <tr>
            <td>{props.corner ?? ""}</td>
            {props.columns.map((name, j) => (
              <th scope="col" key={j} title={name}>
                <span>{name}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.values.map((row, i) => (
            <tr key={i}>
              <th scope="row" title={props.rows[i]}>
                <span>{props.rows[i]}</span>
              </th>
              {row.map((value, j) => (
                <td key={j} style={shade(value / scale)}>
                  {value.toFixed(2)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

// uPlot inside a component: as wide as its place, in the page's colours, with its figures as a table for who cannot see it.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

export interface Series {
  label: string;
  values: (number | null)[];
  colour?: number;
}

function ink(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const tickText = (values: number[]) => values.map((value) => (Math.abs(value) >= 1000 ? value.toLocaleString("en") : String(+value.toPrecision(4))));

const clock = (seconds: number) => new Date(seconds * 1000).toTimeString().slice(0, 8);

export function Chart(props: {
  x: number[];
  series: Series[];
  label: string;
  height?: number;
  time?: boolean;
  unit?: string;
  zero?: boolean;
}) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data: uPlot.AlignedData = [props.x, ...props.series.map((series) => series.values)];
  const names = props.series.map((series) => series.label).join("\n");

  useEffect(() => {
    const place = box.current!;
    const height = props.height ?? 190;
    const draw = () => {
      plot.current?.destroy();
      const axis = { stroke: ink("--muted"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
      const options: uPlot.Options = {
        width: Math.max(place.clientWidth, 120),
        height,
        cursor: { y: false },
        legend: { live: true },
        scales: { x: { time: props.time ?? false }, y: { range: (_, low, high) => [props.zero ? 0 : low, high > low ? high * 1.05 : low + 1] } },
        axes: [props.time ? { ...axis, values: (_: uPlot, values: number[]) => values.map(clock) } : axis, { ...axis, size: 54, values: (_: uPlot, values: number[]) => tickText(values) }],
        series: [
          { label: props.time ? "time" : "at" },
          ...props.series.map((series, index) => ({
            label: series.label + (props.unit ? ` (${props.unit})` : ""),
            stroke: ink(`--series-${(series.colour ?? index) + 1}`),
            width: 2,
            points: { show: false },
            spanGaps: true,
          })),
        ],
      };
      plot.current = new uPlot(options, data, place);
    };
    draw();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(place.clientWidth, 120), height }));
    resized.observe(place);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", draw);
      plot.current?.destroy();
    };
    // Another set of series is another chart; new values go into the one that is there.
  }, [names, props.time]);

  useEffect(() => plot.current?.setData(data));

  const last = props.series.map((series) => `${series.label}: ${series.values.at(-1) ?? "none"}`).join(", ");
  return <div ref={box} class="chart" role="img" aria-label={`${props.label}. Latest: ${last}`} />;
}

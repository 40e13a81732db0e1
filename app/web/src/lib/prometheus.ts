// Prometheus' text format, as far as a page needs it: samples by name, and percentiles of histograms between scrapes.

export interface Sample {
  labels: Record<string, string>;
  value: number;
}
export type Scrape = Map<string, Sample[]>;

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export function parseMetrics(text: string): Scrape {
  const scrape: Scrape = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const match = LINE.exec(line);
    if (!match) continue;
    const labels: Record<string, string> = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) labels[name!] = value!;
    const value = match[3] === "+Inf" ? Infinity : Number(match[3]);
    const samples = scrape.get(match[1]!) ?? [];
    samples.push({ labels, value });
    scrape.set(match[1]!, samples);
  }
  return scrape;
}

// Which samples count: all, those with these labels, or those of which this is true.
export type Wanted = Record<string, string> | ((labels: Record<string, string>) => boolean);

function matches(labels: Record<string, string>, wanted: Wanted): boolean {
  if (typeof wanted === "function") return wanted(labels);
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}

export function total(scrape: Scrape, name: string, wanted: Wanted = {}): number {
  return (scrape.get(name) ?? []).reduce((sum, sample) => sum + (matches(sample.labels, wanted) ? sample.value : 0), 0);
}

export function increase(
  before: Scrape,
  after: Scrape,
  name: string,
  wanted: Wanted = {},
): number {
  const now = total(after, name, wanted);
  const then = total(before, name, wanted);
  // A counter that has fallen began anew.
  return now >= then ? now - then : now;
}

// The value below which a share of what was observed between two scrapes lies, linear within a bucket as in PromQL.
export function quantile(
  before: Scrape,
  after: Scrape,
  name: string,
  share: number,
  wanted: Wanted = {},
): number {
  const counts = new Map<number, number>();
  for (const [scrape, sign] of [[after, 1], [before, -1]] as const) {
    for (const { labels, value } of scrape.get(`${name}_bucket`) ?? []) {
      if (!matches(labels, wanted)) continue;
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
    }
  }
  const bounds = [...counts.keys()].sort((a, b) => a - b);
  const all = counts.get(Infinity) ?? 0;
  if (all <= 0) return NaN;
  let lower = 0;
  let below = 0;
  for (const bound of bounds) {
    const upTo = counts.get(bound)!;
    if (upTo >= share * all) {
      if (bound === Infinity) return lower;
      return upTo === below ? bound : lower + ((bound - lower) * (share * all - below)) / (upTo - below);
    }
    lower = bound;
    below = upTo;
  }
  return lower;
}

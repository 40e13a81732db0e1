// Vectors as the server makes them, computed again here: cut to a prefix, scaled to unit length, stored in a dtype.

export type Dtype = "float32" | "float16" | "int8" | "binary";
export const DTYPES: Dtype[] = ["float32", "float16", "int8", "binary"];
const BITS: Record<Dtype, number> = { float32: 32, float16: 16, int8: 8, binary: 1 };

export function bytesOf(dimensions: number, dtype: Dtype): number {
  return Math.ceil((dimensions * BITS[dtype]) / 8);
}

export function fromBase64(text: string): Float32Array {
  const raw = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Float32Array(raw.buffer);
}

export function unit(vector: Float32Array): Float32Array {
  let sum = 0;
  for (const value of vector) sum += value * value;
  const norm = Math.sqrt(sum);
  return norm === 0 ? vector : vector.map((value) => value / norm);
}

// Rounds to the nearest half-precision value, ties to even (IEEE 754 binary16); unit vectors need no infinities.
export function toHalf(value: number): number {
  const size = Math.abs(value);
  if (size === 0) return 0;
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  const step = 2 ** (exponent - 10);
  const steps = size / step;
  let rounded = Math.floor(steps);
  const rest = steps - rounded;
  if (rest > 0.5 || (rest === 0.5 && rounded % 2 === 1)) rounded += 1;
  return Math.sign(value) * rounded * step;
}

// What a stored vector stands for. Codes of int8 come from the server, whose ranges they depend on.
export function stored(raw: Float32Array, dimensions: number, dtype: Dtype): Float32Array {
  const cut = unit(raw.slice(0, dimensions));
  if (dtype === "float16") return cut.map(toHalf);
  if (dtype === "binary") return cut.map((value) => (value > 0 ? 1 : -1));
  return cut;
}

export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

export function cosine(a: Float32Array, b: Float32Array): number {
  const norm = Math.sqrt(dot(a, a) * dot(b, b));
  return norm === 0 ? 0 : dot(a, b) / norm;
}

export function cosines(rows: Float32Array[], columns: Float32Array[]): number[][] {
  return rows.map((row) => columns.map((column) => cosine(row, column)));
}

// Indices from the nearest to the farthest; of equals the earlier first.
export function ranking(scores: number[]): number[] {
  return scores.map((_, index) => index).sort((a, b) => scores[b]! - scores[a]! || a - b);
}

function centred(rows: Float32Array[]): Float32Array[] {
  const mean = new Float32Array(rows[0]!.length);
  for (const row of rows) row.forEach((value, i) => (mean[i]! += value / rows.length));
  return rows.map((row) => row.map((value, i) => value - mean[i]!));
}

// The first two principal components, by power iteration on the rows themselves (n × D stays small here).
export function project(rows: Float32Array[]): { points: [number, number][]; share: number } {
  if (rows.length < 3) return { points: rows.map((_, i) => [i, 0]), share: 1 };
  let rest = centred(rows);
  const total = rest.reduce((sum, row) => sum + dot(row, row), 0) || 1;
  const points: [number, number][] = rows.map(() => [0, 0]);
  let explained = 0;
  for (const axis of [0, 1] as const) {
    let direction = unit(rest.reduce((best, row) => (dot(row, row) > dot(best, best) ? row : best)).slice());
    for (let round = 0; round < 60; round++) {
      const next = new Float32Array(direction.length);
      for (const row of rest) {
        const weight = dot(row, direction);
        for (let i = 0; i < next.length; i++) next[i]! += weight * row[i]!;
      }
      direction = unit(next);
    }
    rest = rest.map((row, i) => {
      const weight = dot(row, direction);
      points[i]![axis] = weight;
      explained += weight * weight;
      return row.map((value, j) => value - weight * direction[j]!);
    });
  }
  return { points, share: explained / total };
}

// Spherical k-means from the farthest points on: the same texts always give the same clusters.
export function clusters(rows: Float32Array[], count: number): number[] {
  const units = rows.map(unit);
  const centres = [units[0]!];
  while (centres.length < Math.min(count, units.length)) {
    const nearest = units.map((row) => Math.max(...centres.map((centre) => dot(row, centre))));
    centres.push(units[nearest.indexOf(Math.min(...nearest))]!);
  }
  let labels: number[] = [];
  for (let round = 0; round < 30; round++) {
    const next = units.map((row) => ranking(centres.map((centre) => dot(row, centre)))[0]!);
    if (next.every((label, i) => label === labels[i])) break;
    labels = next;
    centres.forEach((centre, label) => {
      const sum = new Float32Array(centre.length);
      units.forEach((row, i) => labels[i] === label && row.forEach((value, j) => (sum[j]! += value)));
      if (dot(sum, sum) > 0) centres[label] = unit(sum);
    });
  }
  return labels;
}

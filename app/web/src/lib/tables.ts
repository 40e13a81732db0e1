// CSV, TSV, JSONL and plain lines, read in the browser: what is dropped here goes to the server as texts only.

const TEXT_COLUMNS = ["text", "content", "document", "body", "abstract", "passage", "sentence", "title", "question"];

export interface Texts {
  texts: string[];
  format: string;
  column: string;
}

// RFC 4180: quoted fields hold separators, quotes twice and line ends.
export function parseCsv(content: string, separator: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let field = "";
  let quoted = false;
  for (let i = 0; i < content.length; i++) {
    const char = content[i]!;
    if (quoted) {
      if (char !== '"') field += char;
      else if (content[i + 1] === '"') field += content[++i];
      else quoted = false;
    } else if (char === '"' && field === "") quoted = true;
    else if (char === separator) {
      row.push(field);
      field = "";
    } else if (char === "\n" || char === "\r") {
      if (char === "\r" && content[i + 1] === "\n") i += 1;
      rows.push([...row, field]);
      row = [];
      field = "";
    } else field += char;
  }
  if (field || row.length) rows.push([...row, field]);
  return rows.filter((cells) => cells.some((cell) => cell.trim()));
}

function longest(rows: string[][], width: number): number {
  const sizes = Array.from({ length: width }, (_, i) => rows.reduce((sum, row) => sum + (row[i]?.length ?? 0), 0));
  return sizes.indexOf(Math.max(...sizes));
}

function fromTable(rows: string[][], format: string): Texts {
  const header = rows[0]!.map((name) => name.trim().toLowerCase());
  const named = TEXT_COLUMNS.map((name) => header.indexOf(name)).find((index) => index >= 0);
  const column = named ?? longest(rows.slice(1), header.length);
  return {
    texts: rows.slice(1).map((row) => (row[column] ?? "").trim()).filter(Boolean),
    format,
    column: rows[0]![column]!,
  };
}

function fromObjects(lines: string[]): Texts {
  const rows = lines.map((line, number) => {
    try {
      return JSON.parse(line) as unknown;
    } catch {
      throw new Error(`Line ${number + 1} is not JSON. Every line of a JSONL file must be an object or a string.`);
    }
  });
  const first = rows[0];
  if (typeof first === "string") return { texts: rows.map(String).filter(Boolean), format: "JSONL", column: "" };
  const fields = Object.entries(first as Record<string, unknown>).filter(([, value]) => typeof value === "string");
  const named = TEXT_COLUMNS.find((name) => fields.some(([field]) => field === name));
  const column = named ?? fields.sort((a, b) => String(b[1]).length - String(a[1]).length)[0]?.[0];
  if (column === undefined) throw new Error("Line 1 has no field with a text.");
  const texts = rows.map((row) => String((row as Record<string, unknown>)[column] ?? "").trim()).filter(Boolean);
  return { texts, format: "JSONL", column };
}

// Reads what was pasted or dropped; the file's name decides where it is known, else the content.
export function readTexts(content: string, fileName = ""): Texts {
  const lines = content.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  const name = fileName.toLowerCase();
  if (!lines.length) return { texts: [], format: "lines", column: "" };
  if (/\.(jsonl|ndjson)$/.test(name) || (!name && /^[{"]/.test(lines[0]!) && lines.length > 0 && isJson(lines[0]!))) {
    return fromObjects(lines);
  }
  if (name.endsWith(".json")) {
    const rows = JSON.parse(content) as unknown;
    if (!Array.isArray(rows)) throw new Error("A JSON file must be a list of texts or of objects.");
    return { ...fromObjects(rows.map((row) => JSON.stringify(row))), format: "JSON" };
  }
  if (name.endsWith(".csv")) return fromTable(parseCsv(content, ","), "CSV");
  if (name.endsWith(".tsv")) return fromTable(parseCsv(content, "\t"), "TSV");
  return { texts: lines, format: "lines", column: "" };
}

function isJson(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

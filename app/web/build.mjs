// Bundles src/ into the package; with --check says whether what is there is what src/ makes.
import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import path from "node:path";

const here = path.dirname(fileURLToPath(import.meta.url));
const target = path.join(here, "../nestvec/api/console");

const bundle = await build({
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx" },
  outdir: "out",
  bundle: true,
  minify: true,
  write: false,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
});
const files = new Map(bundle.outputFiles.map((file) => [path.basename(file.path), Buffer.from(file.contents)]));
for (const name of ["index.html", "favicon.svg"]) files.set(name, await readFile(path.join(here, "src", name)));

if (process.argv.includes("--check")) {
  const there = (await readdir(target)).filter((name) => !name.startsWith("__"));
  const stale = [...files].filter(([name]) => !there.includes(name)).map(([name]) => name);
  for (const name of there) {
    if (!files.has(name) || !files.get(name).equals(await readFile(path.join(target, name)))) stale.push(name);
  }
  if (stale.length) {
    console.error(`not what the sources make: ${[...new Set(stale)].join(", ")}; run make console`);
    process.exit(1);
  }
} else {
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  for (const [name, content] of files) await writeFile(path.join(target, name), content);
  for (const [name, content] of files) console.log(`${name}\t${content.length}`);
}

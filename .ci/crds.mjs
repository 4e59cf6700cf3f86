// Checks objects of custom resources: values by the validators that are generated from the projects' own definitions, unknown fields by the
// TypeScript compiler, which allows none in a literal. Reads JSON documents (an array) on stdin; prints one line per fault; 0, or 6 with faults.
//
//   node .ci/crds.mjs NODE_MODULES <objects.json
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const PLACES = {
  "gateway.networking.k8s.io/v1/HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
  "monitoring.coreos.com/v1/ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
  "monitoring.coreos.com/v1/PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
  "argoproj.io/v1alpha1/Rollout": "@kubernetes-models/argo-rollouts/argoproj.io/v1alpha1/Rollout",
};
const modules = resolve(process.argv[2]);
const objects = JSON.parse(readFileSync(0, "utf8"));
const faults = [];
const lines = [];
const folder = mkdtempSync(join(tmpdir(), "crds-"));
try {
  symlinkSync(modules, join(folder, "node_modules"));
  const kinds = Object.entries(PLACES).map(([kind, place]) => `  ${JSON.stringify(kind)}: (await import("${place}")).${kind.split("/").pop()},`);
  writeFileSync(join(folder, "models.mjs"), `export const models = {\n${kinds.join("\n")}\n};\n`);
  const { models } = await import(pathToFileURL(join(folder, "models.mjs")));
  for (const [number, found] of objects.entries()) {
    const kind = `${found.apiVersion}/${found.kind}`;
    if (!(kind in PLACES)) {
      faults.push(`${kind} ${found.metadata.name}: nothing checks this kind`);
      continue;
    }
    try {
      new models[kind](found).validate();
    } catch (error) {
      faults.push(`${kind} ${found.metadata.name}: ${error.message}`);
    }
    lines.push(`import type { I${found.kind} as T${number} } from "${PLACES[kind]}"; export const o${number}: T${number} = ${JSON.stringify(found)};`);
  }
  writeFileSync(join(folder, "objects.ts"), lines.join("\n"));
  const options = { strict: true, noEmit: true, moduleResolution: "bundler", module: "esnext", target: "es2022", skipLibCheck: true, types: [] };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["objects.ts"] }));
  const done = spawnSync(process.execPath, [join(modules, "typescript", "bin", "tsc"), "-p", folder, "--pretty", "false"], { encoding: "utf8" });
  if (done.status !== 0) faults.push((done.stdout || done.stderr).trim());
} finally {
  rmSync(folder, { recursive: true });
}
if (faults.length) {
  console.log(faults.join("\n"));
  process.exitCode = 6;
}

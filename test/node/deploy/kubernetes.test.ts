import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { IStatefulSet } from "kubernetes-models/apps/v1";
import * as apps from "kubernetes-models/apps/v1";
import * as policy from "kubernetes-models/policy/v1";
import type { IConfigMap, IContainer, IService } from "kubernetes-models/v1";
import * as core from "kubernetes-models/v1";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { endWithinMs } from "../../../actors/ending.ts";
import { nodeIdentity } from "../../../cluster/node-identity.ts";
import { loadConfig } from "../../../node/config/load-config.ts";
import { settingHelp } from "../../../node/config/settings.ts";
import { judgeMachine, nodeVersionMin } from "../../../node/doctor/machine-findings.ts";
import { repository } from "../../support/repository.ts";

/* node/deploy/kubernetes.yaml against the schema of Kubernetes, and against what the code wants. */

type Manifest = { readonly apiVersion: string; readonly kind: string; readonly metadata: { readonly name: string } };

const text = await readFile(join(repository, "node/deploy/kubernetes.yaml"), "utf8");
const manifests = parseAllDocuments(text).map((document) => document.toJS() as Manifest);
const models: Readonly<Record<string, new (data: never) => { validate(): void }>> = {
  "apps/v1 StatefulSet": apps.StatefulSet,
  "policy/v1 PodDisruptionBudget": policy.PodDisruptionBudget,
  "v1 ConfigMap": core.ConfigMap,
  "v1 Service": core.Service,
};

function required<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error("the manifest lacks something");
  return value;
}

function manifest<T>(kind: string, name: string): T {
  return required(manifests.find((one) => one.kind === kind && one.metadata.name === name)) as unknown as T;
}

const set = manifest<IStatefulSet>("StatefulSet", "starling");
const pod = required(required(set.spec).template.spec);
const container: IContainer = required(pod.containers[0]);
const variables = new Map(required(container.env).map(({ name, value }) => [name, value]));

/** The value, and a list to which the path of every key goes that a reader of the value never looks at. */
function watched<T extends object>(value: T, path = ""): { readonly value: T; unread(): string[] } {
  const read = new Set<PropertyKey>();
  const below = Object.entries(value).flatMap(([key, item]: [string, unknown]) =>
    typeof item === "object" && item !== null ? [[key, watched(item, `${path}/${key}`)] as const] : [],
  );
  const children = new Map(below);
  const proxy = new Proxy(value, {
    get: (target, key) => {
      read.add(key);
      return children.get(String(key))?.value ?? Reflect.get(target, key);
    },
  });
  const unread = () => [
    ...Object.keys(value).flatMap((key) => (read.has(key) ? [] : [`${path}/${key}`])),
    ...below.flatMap(([key, child]) => (read.has(key) ? child.unread() : [])),
  ];
  return { value: proxy, unread };
}

/** What the schema has against it; a key that it does not know it never reads. */
function faultsOf(data: Manifest): string[] {
  const model = models[`${data.apiVersion} ${data.kind}`];
  if (model === undefined) return [`no model of ${data.apiVersion} ${data.kind}`];
  const made = new model(data as never);
  const { value, unread } = watched(made);
  try {
    made.validate.call(value);
  } catch (error) {
    return [String(error)];
  }
  return unread();
}

describe("the manifests for Kubernetes", () => {
  it("fit its schema, and have no key that it does not know", () => {
    expect(manifests.map(faultsOf)).toEqual(manifests.map(() => []));
    const typo = structuredClone(set) as unknown as { spec: { template: { spec: Record<string, unknown> } } };
    typo.spec.template.spec.enableServiceLink = false;
    expect(faultsOf(typo as unknown as Manifest)).toEqual(["/spec/template/spec/enableServiceLink"]);
    const wrong = structuredClone(set) as unknown as { spec: { replicas: unknown } };
    wrong.spec.replicas = "three";
    expect(faultsOf(wrong as unknown as Manifest).join()).toContain("replicas");
  });

  it("set variables that are settings, and none that a Service would make", () => {
    const known = settingHelp().map(({ variable }) => variable);
    const ours = [...variables.keys()].filter((name) => name.startsWith("STARLING_"));
    expect(known).toEqual(expect.arrayContaining(ours));
    expect(pod.enableServiceLinks).toBe(false);
  });

  it("agree on ports, names and labels", () => {
    const ports = Object.fromEntries(required(container.ports).map(({ name, containerPort }) => [name, containerPort]));
    expect(variables.get("STARLING_LISTEN")).toBe(`0.0.0.0:${ports.grpc}`);
    expect(variables.get("STARLING_HTTP_LISTEN")).toBe(`0.0.0.0:${ports.http}`);
    const headless = manifest<IService>("Service", "starling-nodes");
    expect(set.spec?.serviceName).toBe("starling-nodes");
    expect(headless.spec).toMatchObject({ clusterIP: "None", publishNotReadyAddresses: true });
    expect(variables.get("STARLING_ADVERTISE")).toBe(
      `$(STARLING_NAME).starling-nodes.$(POD_NAMESPACE).svc:${ports.grpc}`,
    );
    const labels = set.spec?.template.metadata?.labels;
    for (const { spec } of [manifest<IService>("Service", "starling"), headless]) {
      expect(spec?.selector).toEqual(labels);
      for (const { port, targetPort } of spec?.ports ?? []) expect(ports[String(targetPort)]).toBe(port);
    }
    expect(set.spec?.selector.matchLabels).toEqual(labels);
    expect(set.spec?.template.metadata?.annotations?.["prometheus.io/port"]).toBe(String(ports.http));
  });

  it("probe pages that there are, and drain before they end", async () => {
    const pages = await readFile(join(repository, "node/open-http.ts"), "utf8");
    for (const probe of [container.livenessProbe, container.readinessProbe]) {
      expect(probe?.httpGet?.port).toBe("http");
      expect(pages).toContain(`"${probe?.httpGet?.path}":`);
    }
    expect(container.livenessProbe?.httpGet?.path).toBe("/healthz");
    const [sleep, seconds] = container.lifecycle?.preStop?.exec?.command ?? [];
    expect(sleep).toBe("sleep");
    const needsS = Number(seconds) + endWithinMs / 1000 + 10;
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(needsS);
    expect(manifest<{ spec: object }>("PodDisruptionBudget", "starling").spec).toMatchObject({ maxUnavailable: 1 });
  });

  it("give all nodes a certificate that holds their names, in files that settings name", () => {
    expect(set.spec?.replicas).toBe(3);
    expect(text).toContain(`(URI:${nodeIdentity("starling", "starling-0")}, …-1, …-2)`);
    const mount = container.volumeMounts?.find(({ name }) => name === "tls")?.mountPath;
    const files = ["CA", "CERT", "KEY"].map((what) => variables.get(`STARLING_TLS_${what}`));
    expect(files).toEqual(["ca.crt", "tls.crt", "tls.key"].map((file) => `${mount}/${file}`));
    for (const file of ["ca.crt", "tls.crt", "tls.key"]) expect(text).toContain(`--from-file=${file}`);
    const { secret } = pod.volumes?.find(({ name }) => name === "tls") ?? {};
    expect(secret).toEqual({ secretName: "starling-tls", defaultMode: 0o440 });
  });

  it("run without rights, on a file system that is only read but for the data folder", () => {
    expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    const mounts = required(container.volumeMounts);
    expect(mounts.filter(({ readOnly }) => readOnly !== true).map(({ mountPath }) => mountPath)).toEqual([
      variables.get("STARLING_DATA_DIR"),
    ]);
  });
});

describe("what the manifests configure", () => {
  let folder = "";

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "starling-deploy-"));
    const { data = {} } = manifest<IConfigMap>("ConfigMap", "starling-config");
    const items = pod.volumes?.find(({ configMap }) => configMap !== undefined)?.configMap?.items ?? [];
    expect(items.map(({ key }) => key).sort()).toEqual(Object.keys(data).sort());
    for (const { key, path } of items) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), data[key] ?? "");
    }
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("is a configuration with which a node would start, in memory that is enough for it", async () => {
    const given: Readonly<Record<string, string>> = {
      STARLING_NAME: "starling-0",
      STARLING_ADVERTISE: "starling-0.starling-nodes.default.svc:4700",
      STARLING_DATABASE_URL: "postgres://a@b/c",
    };
    const env = Object.fromEntries([...variables].map(([name, value]) => [name, given[name] ?? value]));
    const { settings, ignored } = await loadConfig(folder, { env, flags: {} });
    expect(settings).toMatchObject({ name: "starling-0", etcd: ["etcd:2379"], httpListen: "0.0.0.0:4780" });
    expect(ignored).toEqual([]);
    const memoryBytes = bytesOf(String(container.resources?.limits?.memory));
    const heapMaxBytes = bytesOf(`${/--max-old-space-size=(\d+)/.exec(variables.get("NODE_OPTIONS") ?? "")?.[1]}Mi`);
    expect(heapMaxBytes).toBeLessThan(memoryBytes);
    const machine = { nodeVersion: nodeVersionMin, openFilesMax: null, memoryBytes, heapMaxBytes };
    expect(judgeMachine(machine, settings).filter(({ status }) => status !== "ok")).toEqual([]);
  });
});

function bytesOf(quantity: string): number {
  const [, digits = "", unit = ""] = /^(\d+)([MG]i)$/.exec(quantity) ?? [];
  return Number(digits) * 1024 ** (unit === "Gi" ? 3 : 2);
}

import { afterEach, expect, test } from "vitest";
import { parseGrant } from "../../../node/access/scope.ts";
import { createToken, type KnownToken } from "../../../node/access/token.ts";
import { access } from "../../../node/grpc/access.ts";
import { createGate, type GateOptions } from "../../../node/grpc/gate.ts";
import type { GrpcServer } from "../../../node/grpc/server.ts";
import { connect } from "../../../proto/client.ts";
import { callUnary, type Dialled, dial } from "../../../proto/client-call.ts";
import { type Calls, openCalls } from "../../../proto/client-calls.ts";
import { Health } from "../../../proto/gen/grpc/health_pb.ts";
import { file_starling, Ingest } from "../../../proto/gen/starling_pb.ts";
import { createFakeEngine, type FakeEngine } from "../../support/fake-engine.ts";
import { startEdge } from "../../support/grpc-edge.ts";
import { testModel } from "../../support/test-model.ts";

const model = testModel({
  thing: { name: { kind: "plain", type: "string" } },
  other: { name: { kind: "plain", type: "string" } },
});
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

interface Guarded {
  readonly engine: FakeEngine;
  readonly server: GrpcServer;
  /** Changes the tokens. */
  know(tokens: readonly KnownToken[] | null): void;
  readonly counts: Record<string, number>;
}

async function startGuarded(rest: Partial<GateOptions> = {}): Promise<Guarded> {
  const tokens: { value: readonly KnownToken[] | null } = { value: [] };
  const counts: Record<string, number> = {};
  const count = (name: string): void => {
    counts[name] = (counts[name] ?? 0) + 1;
  };
  const gate = createGate({ tokens, transport: "plain", wall: Date.now, count, ...rest });
  const engine = createFakeEngine();
  const server = await startEdge(engine, { gate, model });
  closers.push(() => server.close());
  const know = (value: readonly KnownToken[] | null): void => {
    tokens.value = value;
  };
  return { engine, server, know, counts };
}

function makeToken(
  name: string,
  scopes: string,
  expiresAt: number | null = null,
): { token: string; known: KnownToken } {
  const { token, hash } = createToken();
  return { token, known: { name, hash, grants: scopes.split(" ").map(parseGrant), expiresAt } };
}

/** Calls with a token of these scopes. */
async function callsWith({ server, know }: Guarded, scopes: string): Promise<Calls> {
  const { token, known } = makeToken("tester", scopes);
  know([known]);
  const calls = await openCalls({ address: server.address, token });
  closers.push(() => calls.close());
  return calls;
}

const denied = (scope: string) => ({
  code: "PERMISSION_DENIED",
  message: `token tester lacks the scope ${scope}: add it to its scopes`,
});
const point = (type: string, eid = "e") => ({ type, eid, attr: "name", v: "x" });

test("every method of the public services has its place in the table of access", () => {
  const methods = file_starling.services.map(({ name, methods }) => [
    name.toLowerCase(),
    methods.map((m) => m.localName).sort(),
  ]);
  const rules = Object.entries(access).map(([name, service]) => [name, Object.keys(service).sort()]);
  expect(rules).toEqual(methods);
});

test("without a token, with an unknown one, and after its end, nothing is answered but health", async () => {
  const guarded = await startGuarded();
  const { address } = guarded.server;
  const late = makeToken("late", "read ingest control", Date.now() - 1);
  guarded.know([late.known, makeToken("other", "read").known]);
  const refused = (token?: string) => openCalls({ address, ...(token && { token }) }).catch((error: unknown) => error);
  expect(await refused()).toMatchObject({
    code: "UNAUTHENTICATED",
    message: expect.stringContaining("STARLING_TOKEN"),
  });
  expect(await refused("starling_nobody")).toMatchObject({
    code: "UNAUTHENTICATED",
    message: expect.stringMatching(/not known/),
  });
  expect(await refused(late.token)).toMatchObject({
    code: "UNAUTHENTICATED",
    message: expect.stringMatching(/late expired at 20/),
  });
  await expect(connect({ address })).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  expect(guarded.counts.calls_unauthenticated).toBe(4);
  const dialled = dial(address);
  closers.push(() => dialled.grpc.close());
  expect((await callUnary(dialled, Health.method.check, {}, 5_000)).status).toBe(1);
});

test("a token that reads one type reads that, and nothing else", async () => {
  const guarded = await startGuarded();
  const { entities, admin, actors } = await callsWith(guarded, "read:thing");
  await expect(entities.get({ type: "thing", eid: "e" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect((await entities.list({ type: "thing" })).records).toEqual([]);
  expect((await admin.status()).state).toBe("serving");
  expect(await admin.modules()).toEqual([]);
  await expect(entities.get({ type: "other", eid: "e" })).rejects.toMatchObject(denied("read:other"));
  await expect(entities.list({ type: "other" })).rejects.toMatchObject(denied("read:other"));
  await expect(entities.count()).rejects.toMatchObject(denied("read"));
  await expect(entities.raw({ type: "other", eid: "e" })[Symbol.asyncIterator]().next()).rejects.toMatchObject(
    denied("read:other"),
  );
  await expect(entities.set({ ...point("thing") })).rejects.toMatchObject(denied("ingest:thing"));
  await expect(entities.delete({ type: "thing", eid: "e" })).rejects.toMatchObject(denied("control:thing"));
  await expect(admin.deadLetters()).rejects.toMatchObject(denied("read"));
  await expect(admin.replay("1")).rejects.toMatchObject(denied("control"));
  await expect(actors.ask({ type: "other", eid: "e" }, null)).rejects.toMatchObject(denied("read:other"));
  await expect(actors.ask({ singleton: "x" }, {})).rejects.toMatchObject(denied("ingest"));
  await expect(connect({ address: guarded.server.address, token: "x" })).rejects.toMatchObject({
    code: "UNAUTHENTICATED",
  });
  expect(guarded.counts.calls_denied).toBeGreaterThan(9);
});

test("a token for one type sends that, and each datapoint of another type is refused by itself", async () => {
  const guarded = await startGuarded();
  const { token, known } = makeToken("tester", "ingest:thing");
  guarded.know([known]);
  await using client = await connect({ address: guarded.server.address, token });
  const outcome = await client.send([point("thing"), point("other"), point("thing", "f")]);
  expect(outcome).toMatchObject({ accepted: 2, rejections: [{ index: 1, ...denied("ingest:other") }] });
  expect(guarded.engine.world.applied.map(({ eid }) => eid)).toEqual(["e", "f"]);
  await expect(client.entities.set(point("other"))).rejects.toMatchObject(denied("ingest:other"));
  await expect(client.entities.get({ type: "thing", eid: "e" })).rejects.toMatchObject(denied("read:thing"));
});

test("a token without the scope opens no stream", async () => {
  const guarded = await startGuarded();
  const { token, known } = makeToken("tester", "read control");
  guarded.know([known]);
  await expect(connect({ address: guarded.server.address, token })).rejects.toMatchObject(denied("ingest"));
});

test("deleting needs control, also by a message to the entity", async () => {
  const guarded = await startGuarded();
  const sender = await callsWith(guarded, "ingest");
  await expect(sender.entities.delete({ type: "thing", eid: "e" })).rejects.toMatchObject(denied("control:thing"));
  await expect(sender.actors.send({ type: "thing", eid: "e" }, { delete: true })).rejects.toMatchObject(
    denied("control:thing"),
  );
  expect(
    await sender.actors.send({ type: "thing", eid: "e" }, { datapoints: [{ attr: "name", v: "x" }] }),
  ).not.toBeNull();
  const keeper = await callsWith(guarded, "control:thing");
  expect(await keeper.entities.delete({ type: "thing", eid: "e" })).toBeDefined();
});

test("a token that is withdrawn ends the stream that it opened, with the next batch", async () => {
  const guarded = await startGuarded();
  const { token, known } = makeToken("tester", "ingest");
  guarded.know([known]);
  await using client = await connect({ address: guarded.server.address, token });
  expect((await client.send([point("thing")])).accepted).toBe(1);
  guarded.know([makeToken("tester", "ingest").known]);
  await expect(client.send([point("thing", "f")])).rejects.toMatchObject({
    code: "UNAUTHENTICATED",
    message: expect.stringContaining("it was withdrawn"),
  });
  expect(guarded.engine.world.applied).toHaveLength(1);
});

test("without tokens everything is allowed in plain text, and beyond loopback under TLS only with a certificate", async () => {
  const open = await startGuarded();
  open.know(null);
  await using client = await connect({ address: open.server.address });
  expect((await client.send([point("thing")])).accepted).toBe(1);
  const gate = createGate({ tokens: { value: null }, transport: "tls", wall: Date.now, count: () => {} });
  const { metadata } = { metadata: { get: () => [] } };
  const call = (peer: string, socket?: object) =>
    ({
      metadata,
      getPeer: () => peer,
      call: { stream: { session: socket && { socket, destroy: () => {} } } },
    }) as never;
  const shown = { raw: Buffer.alloc(1), subjectaltname: "DNS:client" };
  expect(() => gate.callerOf(call("127.0.0.1:1"))).not.toThrow();
  expect(() => gate.callerOf(call("192.0.2.7:1"))).toThrow(/there are no tokens here/);
  const good = { getPeerCertificate: () => shown, authorized: true };
  expect(() => gate.callerOf(call("192.0.2.7:1", good))).not.toThrow();
  const bad = { getPeerCertificate: () => shown, authorized: false, authorizationError: "CERT_HAS_EXPIRED" };
  expect(() => gate.callerOf(call("127.0.0.1:1", bad))).toThrow(
    /the certificate is not trusted here: CERT_HAS_EXPIRED/,
  );
});

test("a session that was begun under one token is not taken up under another", async () => {
  const { server, know } = await startGuarded();
  const { address } = server;
  const [one, two, renewed] = [makeToken("one", "ingest"), makeToken("two", "ingest"), makeToken("one", "ingest")];
  know([one.known, two.known]);
  const session = { name: "mine" };
  const client = await connect({ address, session, token: one.token });
  closers.push(() => client.close());
  const refused = { code: "PERMISSION_DENIED", message: /session mine was begun under another token: use that one/ };
  await expect(connect({ address, session, token: two.token })).rejects.toMatchObject({
    ...refused,
    message: expect.stringMatching(refused.message),
  });
  expect((await client.send([point("thing")])).accepted).toBe(1);
  const dialledBy = ({ token }: { readonly token: string }): Dialled => {
    const dialled = dial(address, { token });
    closers.push(() => dialled.grpc.close());
    return dialled;
  };
  const sendKeyed = (by: { readonly token: string }) =>
    callUnary(dialledBy(by), Ingest.method.send, { idempotencyKey: "k", datapoints: [] }, 5_000);
  await sendKeyed(one);
  await expect(sendKeyed(two)).rejects.toMatchObject({
    code: "PERMISSION_DENIED",
    message: expect.stringMatching(/the idempotency key k was begun under another token/),
  });
  // Its name is what counts: a new secret goes on with its sessions.
  know([renewed.known, two.known]);
  const again = await connect({ address, session, token: renewed.token, startNumber: 2 });
  closers.push(() => again.close());
  expect((await again.send([point("thing")])).accepted).toBe(1);
});

import { expect, it } from "vitest";
import { parseReach } from "../../../node/cli/address.ts";
import { run } from "./terminal.ts";

it("a node is reached as flags say, else as variables do, else in plain text", () => {
  expect(parseReach({}, {})).toEqual({ addresses: ["127.0.0.1:4700"], allowPlaintext: false });
  const env = {
    STARLING_ADDRESS: "node-1",
    STARLING_TLS_CA: "ca.pem",
    STARLING_TLS_CERT: "me.pem",
    STARLING_TLS_KEY: "me.key",
    STARLING_TOKEN: "secret",
    STARLING_ALLOW_PLAINTEXT: "true",
  };
  const tls = { ca: "ca.pem", cert: "me.pem", key: "me.key" };
  const byEnv = { addresses: ["node-1:4700"], allowPlaintext: true, token: "secret", tls };
  expect(parseReach({}, env)).toEqual(byEnv);
  expect(parseReach({ tlsCa: "other.pem", token: "t" }, env)).toEqual({
    ...byEnv,
    token: "t",
    tls: { ...tls, ca: "other.pem" },
  });
  expect(parseReach({}, { STARLING_TLS_CA: "", STARLING_TOKEN: "" })).toEqual(parseReach({}, {}));
});

it("commands refuse plain text beyond loopback, with what to do", async () => {
  const plain = await run(["status", "--address", "192.0.2.1:4700"]);
  expect(plain.code).toBe(1);
  expect(plain.err).toMatch(
    /192\.0\.2\.1:4700: a connection in plain text stays on loopback: .*--tls-ca.*--allow-plaintext/,
  );
  const secret = await run(["status", "--address", "192.0.2.1:4700", "--token", "t", "--allow-plaintext"]);
  expect(secret.err).toMatch(/192\.0\.2\.1:4700: a token in plain text stays on loopback/);
  const missing = await run(["status", "--tls-ca", "/nowhere/ca.pem"]);
  expect(missing.err).toMatch(/CONFIG: \/nowhere\/ca\.pem cannot be read/);
});

import { expect, it } from "vitest";
import { type Settings, settingsSchema } from "../../../node/config/settings.ts";
import { planProblems } from "../../../node/config/settings-problem.ts";

const wrong = (given: Partial<Settings>) =>
  planProblems({ ...settingsSchema.parse({}), ...given }).map(({ name }) => name);
const cert = { tlsCert: "node.pem", tlsKey: "node.key" };
const cluster = { etcd: ["127.0.0.1:2379"], databaseUrl: "postgres://db/starling" };

it("plain text is listened to on loopback only, unless it is allowed by name", () => {
  expect(wrong({})).toEqual([]);
  expect(wrong({ listen: "[::1]:1" })).toEqual([]);
  expect(wrong({ listen: "0.0.0.0:4700" })).toEqual(["listen"]);
  expect(wrong({ listen: "192.0.2.1:4700" })).toEqual(["listen"]);
  expect(wrong({ listen: "0.0.0.0:4700", allowPlaintext: true })).toEqual([]);
  expect(wrong({ listen: "0.0.0.0:4700", ...cert })).toEqual([]);
});

it("a certificate comes with its key, and in a cluster with authorities and a name", () => {
  expect(wrong({ tlsCert: "node.pem" })).toEqual(["tlsCert"]);
  expect(wrong({ tlsKey: "node.key" })).toEqual(["tlsKey"]);
  expect(wrong({ tlsCa: "ca.pem" })).toEqual(["tlsCa"]);
  expect(wrong({ ...cert, ...cluster })).toEqual(["tlsCert", "tlsCert"]);
  expect(wrong({ ...cert, ...cluster, tlsCa: "ca.pem", name: "ada" })).toEqual([]);
  expect(wrong({ ...cert, tlsClientAuth: "required" })).toEqual(["tlsClientAuth"]);
});

it("several nodes share a database", () => {
  expect(wrong({ etcd: ["127.0.0.1:2379"] })).toEqual(["etcd"]);
});

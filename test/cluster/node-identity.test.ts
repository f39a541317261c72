import { expect, it } from "vitest";
import { describeForeign, nodesOfCertificate } from "../../cluster/node-identity.ts";

const nodes = (altNames: string) => [...nodesOfCertificate(altNames, "prod")];

it("a certificate speaks for the nodes that its URIs name, in its cluster", () => {
  expect(nodes("DNS:a, URI:starling://prod/node/ada, IP Address:127.0.0.1")).toEqual(["ada"]);
  expect(nodes("URI:starling://prod/node/ada, URI:starling://prod/node/bob")).toEqual(["ada", "bob"]);
  expect(nodes("URI:starling://test/node/ada")).toEqual([]);
  expect(nodes("DNS:starling://prod/node/ada")).toEqual([]);
  expect(nodes("")).toEqual([]);
});

it("a name that looks like several is one", () => {
  expect(nodes('DNS:"x, URI:starling://prod/node/ada"')).toEqual([]);
  expect(nodes('DNS:"x\\", URI:starling://prod/node/ada", DNS:y')).toEqual([]);
  expect(nodes('URI:"starling://prod/node/a,b"')).toEqual(["a,b"]);
});

it("names that cannot be read to their end are none", () => {
  expect(nodes('URI:starling://prod/node/ada, DNS:"x')).toEqual([]);
  expect(nodes("URI:starling://prod/node/ada, nonsense")).toEqual([]);
});

it("a foreign certificate is told with what it has and what it needs", () => {
  expect(describeForeign("DNS:a", "prod", "ada")).toBe(
    "the certificate is not that of node ada: it needs the name URI:starling://prod/node/ada, and has DNS:a",
  );
});

/*
 * Whose a certificate is: a subject alternative name of the kind URI, `starling://CLUSTER/node/NAME`, for each node that it
 * speaks for. CLUSTER is the setting `cluster_name`, NAME the node's `name`.
 */

/** The name that a node's certificate has to hold. */
export function nodeIdentity(cluster: string, name: string): string {
  return `starling://${cluster}/node/${name}`;
}

/** The nodes of a cluster that a certificate speaks for. */
export function nodesOfCertificate(altNames: string, cluster: string): ReadonlySet<string> {
  const start = nodeIdentity(cluster, "");
  const uris = parseAltNames(altNames).flatMap(({ kind, value }) => (kind === "URI" ? [value] : []));
  return new Set(uris.filter((uri) => uri.startsWith(start)).map((uri) => uri.slice(start.length)));
}

/** What a certificate without the right name is said to be, and what to do. */
export function describeForeign(altNames: string, cluster: string, name: string): string {
  const found = altNames === "" ? "no names" : altNames;
  return `the certificate is not that of node ${name}: it needs the name URI:${nodeIdentity(cluster, name)}, and has ${found}`;
}

interface AltName {
  readonly kind: string;
  readonly value: string;
}

/**
 * Reads `X509Certificate.subjectAltName`: `DNS:a, URI:b`, where a value that could be mistaken for several is a JSON string.
 * One that cannot be read to its end has no names. Source: https://nodejs.org/api/crypto.html#x509subjectaltname
 */
function parseAltNames(text: string): AltName[] {
  const names: AltName[] = [];
  const next = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)/y;
  while (next.lastIndex < text.length) {
    const [, kind, value] = next.exec(text) ?? [];
    if (kind === undefined || value === undefined) return [];
    names.push({ kind, value: value.startsWith('"') ? String(JSON.parse(value)) : value });
  }
  return names;
}

import { isLoopback } from "../../proto/loopback.ts";
import type { SettingName, Settings } from "./settings.ts";

/** What is wrong with settings that are each right by themselves. */
export interface SettingsProblem {
  /** The setting that it is told of. */
  readonly name: SettingName;
  readonly allowed: string;
  readonly message: string;
}

/** Everything that does not go together. */
export function planProblems(settings: Settings): SettingsProblem[] {
  const { etcd, databaseUrl, tlsCert, tlsKey, tlsCa, tlsClientAuth, allowPlaintext, listen } = settings;
  const problems: SettingsProblem[] = [];
  const add = (name: SettingName, allowed: string, message: string): void =>
    void problems.push({ name, allowed, message });
  if (etcd !== null && databaseUrl === null) {
    // The embedded one is a node's own.
    add("etcd", "etcd together with database_url", "several nodes need a PostgreSQL that all of them use");
  }
  if (tlsCert !== null && tlsKey === null) add("tlsCert", "tls_cert together with tls_key", "its key is missing");
  if (settings.httpTls && tlsCert === null)
    add("httpTls", "http_tls together with tls_cert", "there is no certificate to serve by");
  if (tlsKey !== null && tlsCert === null)
    add("tlsKey", "tls_key together with tls_cert", "its certificate is missing");
  if (tlsCa !== null && tlsCert === null) {
    add("tlsCa", "tls_ca together with tls_cert and tls_key", "the node has no certificate of its own");
  }
  if (tlsCert !== null && tlsCa === null && etcd !== null) {
    add("tlsCert", "tls_cert together with tls_ca", "nodes of a cluster check each other's certificates");
  }
  if (tlsCert !== null && settings.name === null && etcd !== null) {
    add("tlsCert", "tls_cert together with name", "the certificates of a cluster's nodes hold their names");
  }
  if (tlsClientAuth === "required" && tlsCa === null) {
    add("tlsClientAuth", "required together with tls_ca", "certificates of clients could not be checked");
  }
  if (tlsCert === null && !allowPlaintext && !isLoopback(listen)) {
    const allowed = "an address of loopback, such as 127.0.0.1:4700; or tls_cert and tls_key; or allow_plaintext: true";
    add("listen", allowed, "plain text would be readable beyond this machine");
  }
  return problems;
}

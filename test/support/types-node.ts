import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Connection } from "../../actors/store/connection.ts";
import { createLog } from "../../node/log.ts";
import { startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import { connectAll } from "./databases.ts";
import { testDatabases } from "./postgres.ts";
import { repository } from "./repository.ts";

/** A real node whose model has every data type, a client of it, and a way to its databases. */
export interface TypesNode {
  readonly address: string;
  readonly client: Client;
  readonly connection: Connection;
  close(): Promise<void>;
}

export async function startTypesNode(): Promise<TypesNode> {
  const dataDir = mkdtempSync(join(tmpdir(), "starling-types-"));
  const databases = await testDatabases();
  const node = await startNode({
    configDir: join(repository, "test/support/types-config"),
    env: {},
    flags: { dataDir, ...databases.settings, listen: "127.0.0.1:0", logLevel: "error" },
    log: createLog({ level: "error" }),
  });
  const client = await connect({ address: node.address, level: "processed" });
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  const connection = connectAll(databases.urls, { application: "dump", ...limits });
  const close = async (): Promise<void> => {
    await client.close();
    await node.close();
    await connection.close();
    await databases.close();
    rmSync(dataDir, { recursive: true, force: true });
  };
  return { address: node.address, client, connection, close };
}

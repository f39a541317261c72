import { expect, test } from "vitest";
import { createConnection } from "../../../actors/store/connection.ts";
import { freePort } from "../../support/cluster/free-port.ts";
import { startRefusingPostgres } from "../../support/refusing-postgres.ts";

/* What a server's error means: whose fault it is, and whether another try can help. */
test.each([
  ["a text that is too long", "22001", "varchar.c", "STORE_REFUSED"],
  ["a row of an index that is too large", "54000", "nbtutils.c", "STORE_REFUSED"],
  ["no more transaction ids", "54000", "varsup.c", "STORE"],
  ["no more groups of them", "54000", "multixact.c", "STORE"],
  ["a disk that is full", "53100", "md.c", "STORE"],
  ["a table that is missing", "42P01", "parse_relation.c", "STORE_FATAL"],
])("%s", async (what, sqlState, file, code) => {
  const port = await freePort();
  const server = await startRefusingPostgres(port, ["SERROR", "VERROR", `C${sqlState}`, `M${what}`, `F${file}`]);
  const limits = { statementTimeoutMs: 2_000, connectTimeoutMs: 2_000 };
  const connection = createConnection({ url: `postgres://u@127.0.0.1:${port}/d`, application: "test", ...limits });
  try {
    await expect(connection.query("select 1")).rejects.toMatchObject({ code, message: expect.stringContaining(what) });
  } finally {
    await connection.close();
    await server.close();
  }
});

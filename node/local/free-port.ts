import { createServer } from "node:net";
import { StarlingError } from "../../proto/starling-error.ts";

const host = "127.0.0.1";
/** A node's HTTP listens so far above its gRPC. */
export const httpAbove = 80;

/** A port that is free on loopback just now; of nobody's choice. */
export async function anyFreePort(): Promise<number> {
  return await tryPort(0);
}

/** So many ports for nodes from `first` on; those in between that are taken are passed over. Raises ADDRESS_IN_USE. */
export async function freePortsFrom(first: number, count: number): Promise<number[]> {
  const found: number[] = [];
  for (let port = first; found.length < count && port < first + 100 && port < 65_536; port++) {
    if ((await isFree(port)) && (await isFree(port + httpAbove))) found.push(port);
  }
  if (found.length < count)
    throw new StarlingError("ADDRESS_IN_USE", `there are no ${count} free ports from ${first} on`);
  return found;
}

/** Exactly these ports for nodes. Raises ADDRESS_IN_USE, which names the one that is taken. */
export async function exactPorts(first: number, count: number): Promise<number[]> {
  const ports = Array.from({ length: count }, (_, index) => first + index);
  for (const port of ports.flatMap((one) => [one, one + httpAbove])) {
    if (!(await isFree(port))) throw new StarlingError("ADDRESS_IN_USE", `port ${port} is taken by another program`);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  return await tryPort(port).then(
    () => true,
    () => false, // taken, or not ours to take: either way another one is needed
  );
}

async function tryPort(port: number): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, host, exclusive: true }, resolve);
  });
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof bound === "object" && bound !== null ? bound.port : port;
}

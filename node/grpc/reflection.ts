import {
  createFileRegistry,
  type DescFile,
  type FileRegistry,
  fromJsonString,
  type MessageInitShape,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { type ServerDuplexStream, status } from "@grpc/grpc-js";
import {
  file_grpc_reflection,
  type ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "../../proto/gen/grpc/reflection_pb.ts";
import { type Handler, type Received, Unreadable } from "./service.ts";
import { toStatus } from "./status.ts";

const stable = "grpc.reflection.v1";
const alpha = "grpc.reflection.v1alpha";

/** The reflection service's name before it was stable: older tools ask for it. Its messages are the same on the wire. */
export const alphaServiceName = `${alpha}.ServerReflection`;

type Reply = MessageInitShape<typeof ServerReflectionResponseSchema>;
type Asked = Received<ServerReflectionRequest> | Unreadable;
type Call = ServerDuplexStream<Asked, Reply>;

/**
 * Answers grpc.reflection.v1 (and v1alpha) from protobuf-es descriptors.
 * Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
 */
export function createReflection(
  files: readonly DescFile[],
): Handler<typeof ServerReflection.method.serverReflectionInfo> {
  const registry = createFileRegistry(...[...files, file_grpc_reflection, alphaFile()].map(registryOf));
  const services = [...registry]
    .filter((desc) => desc.kind === "service")
    .map((desc) => ({ name: desc.typeName }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  return (call: Call) => {
    call.on("data", (asked: Asked) => {
      if (asked instanceof Unreadable) return void call.emit("error", toStatus(asked.error));
      const { message } = asked;
      const answer = answerTo(message, registry, services);
      call.write({ validHost: message.host, originalRequest: message, messageResponse: answer });
    });
    call.on("end", () => call.end());
    call.on("error", () => call.end());
  };
}

function answerTo(
  request: ServerReflectionRequest,
  registry: FileRegistry,
  services: readonly { readonly name: string }[],
): NonNullable<Reply["messageResponse"]> {
  const { messageRequest: asked } = request;
  switch (asked.case) {
    case "listServices":
      return { case: "listServicesResponse", value: { service: [...services] } };
    case "fileByFilename":
      return fileAnswer(registry.getFile(asked.value), asked.value);
    case "fileContainingSymbol":
      return fileAnswer(fileOfSymbol(registry, asked.value), asked.value);
    case "allExtensionNumbersOfType":
      return { case: "allExtensionNumbersResponse", value: { baseTypeName: asked.value } };
    case "fileContainingExtension":
      return failure(status.NOT_FOUND, `no extensions of ${asked.value.containingType}`);
    default:
      return failure(status.INVALID_ARGUMENT, "an empty request");
  }
}

/** A symbol is a service, a message, an enum, or a method or field of one. */
function fileOfSymbol(registry: FileRegistry, symbol: string): DescFile | undefined {
  const name = symbol.replace(/^\./, "");
  const owner = name.slice(0, Math.max(name.lastIndexOf("."), 0));
  return (registry.get(name) ?? registry.get(owner))?.file;
}

/** The file and all that it imports: so a client has everything it needs after one question. */
function fileAnswer(file: DescFile | undefined, asked: string): NonNullable<Reply["messageResponse"]> {
  if (file === undefined) return failure(status.NOT_FOUND, `${asked} is not known here`);
  const all = new Set<DescFile>();
  const collect = (one: DescFile) => {
    if (all.has(one)) return;
    all.add(one);
    one.dependencies.forEach(collect);
  };
  collect(file);
  const fileDescriptorProto = [...all].map((one) => toBinary(FileDescriptorProtoSchema, one.proto));
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function failure(errorCode: number, errorMessage: string): NonNullable<Reply["messageResponse"]> {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}

/** One file with what it imports. */
function registryOf(file: DescFile): FileRegistry {
  return createFileRegistry(file.proto, (name) => file.dependencies.find((one) => one.proto.name === name));
}

function alphaFile(): DescFile {
  const text = toJsonString(FileDescriptorProtoSchema, file_grpc_reflection.proto).replaceAll(stable, alpha);
  const proto = fromJsonString(FileDescriptorProtoSchema, text);
  proto.name = "grpc/reflection_v1alpha.proto";
  const file = createFileRegistry(proto, () => undefined).getFile(proto.name);
  if (file === undefined) throw new Error("unreachable: a registry without its own file");
  return file;
}

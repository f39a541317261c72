import type { Http2Session } from "node:http2";
import type { TLSSocket } from "node:tls";

/** A call that grpc-js serves. */
export type ServedCall = object;

/** What whoever calls has shown. */
export type CallCertificate =
  | { readonly kind: "none" }
  /** Of an authority that is trusted, and in time. `altNames` as in `X509Certificate.subjectAltName`. */
  | { readonly kind: "valid"; readonly altNames: string }
  | { readonly kind: "refused"; readonly reason: string };

/** The certificate of the connection behind a call; none in plain text. */
export function certificateOf(call: ServedCall): CallCertificate {
  const socket = sessionBehind(call)?.socket as Partial<TLSSocket> | undefined;
  if (typeof socket?.getPeerCertificate !== "function") return { kind: "none" };
  const { raw, subjectaltname = "" } = socket.getPeerCertificate();
  if (raw === undefined) return { kind: "none" };
  if (socket.authorized === true) return { kind: "valid", altNames: subjectaltname };
  return { kind: "refused", reason: String(socket.authorizationError ?? "its authority is not known") };
}

/** What grpc-js does not offer: the connection of a server's call. Null when a newer version looks different. */
export function sessionBehind(call: ServedCall): Http2Session | null {
  const { stream } = (call as { call?: { stream?: { session?: Http2Session } } }).call ?? {};
  return typeof stream?.session?.destroy === "function" ? stream.session : null;
}

// What the host of this run needs inside pi; its first line says whether tools have to be allowed.
//
// - Permissions: pi has none, so each use of a tool is asked for over pi's own wire, as a dialog
//   that the host answers. pi blocks a tool whose handler fails.
// - Failed requests of the model: status and the time at which a limit ends, which pi's own
//   messages leave out.
import * as diagnostics from "node:diagnostics_channel";

/** Tools that change nothing. */
const READERS = ["read", "grep", "find", "ls"];

/** When a limit ends, by the headers of an answer: milliseconds since the epoch, or nothing. */
function resetOf(headers) {
  const epoch = headers["anthropic-ratelimit-unified-reset"];
  if (/^\d+$/.test(epoch)) return Number(epoch) * 1000;
  const after = headers["retry-after"];
  if (/^\d+$/.test(after)) return Date.now() + Number(after) * 1000;
  const date = Date.parse(after);
  return Number.isNaN(date) ? undefined : date;
}

/** Headers as undici hands them on: names and values in turn, as bytes. */
function headersOf(raw) {
  const headers = {};
  for (let at = 0; at + 1 < raw.length; at += 2) {
    headers[String(raw[at]).toLowerCase()] = String(raw[at + 1]);
  }
  return headers;
}

export default function (pi) {
  let ui;
  pi.on("session_start", (_event, ctx) => {
    ui = ctx.ui;
  });
  diagnostics.subscribe("undici:request:headers", ({ response }) => {
    const status = response.statusCode;
    if (status < 400) return;
    const reset_at_ms = resetOf(headersOf(response.headers));
    ui?.setStatus("supervisor.failed_request", JSON.stringify({ status, reset_at_ms }));
  });
  if (!ASKS) return;
  pi.on("tool_call", async (event, ctx) => {
    if (READERS.includes(event.toolName)) return undefined;
    const what = JSON.stringify({ tool: event.toolName, input: event.input });
    const answer = await ctx.ui.input("supervisor.may_use", what, { signal: ctx.signal });
    return answer === "allow" ? undefined : { block: true, reason: answer || "It is refused." };
  });
}

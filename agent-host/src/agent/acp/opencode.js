// Tells the host what the Agent Client Protocol has no words for, as notifications of an extension
// between the program's own lines: which of the operator's texts the model has answered, what each
// request used, and requests that fail and are made again in silence.
const METHOD = "_supervisor/opencode"
// A text is recognised by its beginning.
const TEXT_MAX = 256
// The HTTP status and the waiting time of the last request that failed; null after one that went well.
let failed = null
const users = new Set()
const parents = new Map()

const say = (params) =>
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", method: METHOD, params }) + "\n")

const listen = (plain) => {
  const fetch = async (...request) => {
    try {
      const answer = await plain(...request)
      const after = answer.headers.get("retry-after")
      failed = answer.ok ? null : { status: answer.status, after }
      return answer
    } catch (error) {
      failed = { network: String(error).slice(0, TEXT_MAX) }
      throw error
    }
  }
  return Object.assign(fetch, plain)
}

const part = (session, { messageID, type, text, synthetic, tokens, cost }) => {
  if (type === "text" && users.has(messageID) && !synthetic) {
    say({ kind: "text", session, message: messageID, text: String(text).slice(0, TEXT_MAX) })
  }
  const parent = parents.get(messageID)
  if (parent && type !== "step-start") {
    parents.delete(messageID)
    say({ kind: "answered", session, message: parent })
  }
  if (type === "step-finish") say({ kind: "step", session, tokens, cost })
}

const heard = ({ type, properties }) => {
  const session = properties?.sessionID
  if (type === "message.updated") {
    const { id, role, parentID, error } = properties.info
    if (role === "user") users.add(id)
    if (role === "assistant" && !error && !properties.info.finish) parents.set(id, parentID)
  } else if (type === "message.part.updated") {
    part(session, properties.part)
  } else if (type === "session.status" && properties.status.type === "retry") {
    const { attempt, message, next } = properties.status
    say({ kind: "retry", session, attempt, message, next, wait_ms: next - Date.now(), failed })
  } else if (type === "session.error") {
    const { name, data } = properties.error ?? {}
    const status = data?.statusCode ?? failed?.status
    say({ kind: "error", session, name, message: data?.message, status, failed })
  } else if (type === "session.compacted") {
    say({ kind: "compacted", session })
  }
}

export const Supervisor = async () => {
  // It is loaded once for each folder that the program opens.
  if (!globalThis.supervisorListens) {
    globalThis.supervisorListens = true
    globalThis.fetch = listen(globalThis.fetch)
    say({ kind: "hello" })
  }
  return {
    event: async ({ event }) => {
      try {
        heard(event)
      } catch (error) {
        say({ kind: "trouble", message: String(error).slice(0, TEXT_MAX) })
      }
    },
  }
}

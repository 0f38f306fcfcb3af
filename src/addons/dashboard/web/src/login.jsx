// The log-in: a pasted token, tried before it is kept.

import { useState } from "preact/hooks";
import { session, whoami } from "./api.js";
import { cleanToken } from "./format.js";
import { Icon } from "./ui.jsx";

export function Login({ message, onDone }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState(message);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const token = cleanToken(text);
    if (!token) return setProblem("Paste a token first.");
    setBusy(true);
    setProblem("");
    session.set(token);
    try {
      onDone(await whoami());
    } catch (error) {
      session.set("");
      setProblem(error.code === 401 ? "This token is not valid, or no longer." : error.message);
      setBusy(false);
    }
  };
  return (
    <div class="login">
      <form onSubmit={submit}>
        <img src="icon.svg" alt="" width="48" height="48" />
        <h1>mini dashboard</h1>
        <label for="token">Token</label>
        <input
          id="token"
          type="password"
          autocomplete="off"
          spellcheck={false}
          autofocus
          placeholder="eyJhbGciOi…"
          value={text}
          onInput={(event) => setText(event.target.value)}
          aria-describedby="login-problem"
        />
        <p id="login-problem" class="login-problem" role="alert">
          {problem && (
            <>
              <Icon name="alert" /> {problem}
            </>
          )}
        </p>
        <button type="submit" class="button primary wide" disabled={busy}>
          {busy ? "Logging in…" : "Log in"}
        </button>
        <div class="hint">
          <p>A token for everything:</p>
          <pre class="code">mini dashboard --token</pre>
          <p>One with a service account's own rights:</p>
          <pre class="code">kubectl create token NAME -n NAMESPACE</pre>
          <p class="faint">The token stays in this browser tab and ends with it.</p>
        </div>
      </form>
    </div>
  );
}

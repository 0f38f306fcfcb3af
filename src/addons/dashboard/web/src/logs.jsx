// A container's log, as it is written.

import { useEffect, useRef, useState } from "preact/hooks";
import { open, pathOf } from "./api.js";
import { lines } from "./live.js";
import { Action, Problem, remember, remembered } from "./ui.jsx";

/** More would make the browser slow; the download has all. */
const MOST = 5000;

export function containersOf(pod) {
  const { initContainers = [], containers = [], ephemeralContainers = [] } = pod.spec || {};
  const of = (list, note) => list.map(({ name }) => ({ name, note }));
  return [...of(containers, ""), ...of(initContainers, "init"), ...of(ephemeralContainers, "debug")];
}

function Check({ label, value, onChange }) {
  return (
    <label class="check">
      <input type="checkbox" checked={value} onChange={(event) => onChange(event.target.checked)} />
      {label}
    </label>
  );
}

export function Logs({ pod, kind, container: wanted }) {
  const { name, namespace } = pod.metadata;
  const containers = containersOf(pod);
  const preferred = pod.metadata.annotations?.["kubectl.kubernetes.io/default-container"];
  const [container, setContainer] = useState(wanted || preferred || containers[0]?.name || "");
  const [previous, setPrevious] = useState(false);
  const [timestamps, setTimestamps] = useState(false);
  const [wrap, setWrap] = useState(remembered("wrap", "yes") === "yes");
  const [tail, setTail] = useState("1000");
  const [filter, setFilter] = useState("");
  const [shown, setShown] = useState([]);
  const [state, setState] = useState("loading");
  const [error, setError] = useState(null);
  const [attempt, setAttempt] = useState(0);
  const [following, setFollowing] = useState(true);
  const box = useRef(null);
  const path = pathOf(kind, namespace, name, "log");

  useEffect(() => {
    const stop = new AbortController();
    let pending = [];
    let kept = [];
    let drawing = 0;
    let retry = 0;
    const draw = () => {
      drawing = 0;
      kept = [...kept, ...pending].slice(-MOST);
      pending = [];
      setShown(kept);
    };
    setError(null);
    setState("loading");
    (async () => {
      try {
        const parameters = { container, follow: !previous, previous, timestamps, tailLines: tail || undefined };
        const response = await open("GET", path, { parameters, accept: "text/plain, */*", signal: stop.signal });
        setShown([]);
        setState(previous ? "ended" : "live");
        for await (const line of lines(response)) {
          pending.push(line);
          drawing ||= requestAnimationFrame(draw);
        }
        setState("ended");
      } catch (problem) {
        if (stop.signal.aborted) return;
        setState("failed");
        if (problem.code) return setError(problem);
        // The way broke, not the log: read it again.
        retry = setTimeout(() => setAttempt((count) => count + 1), 1000);
      }
    })();
    return () => {
      clearTimeout(retry);
      stop.abort();
      cancelAnimationFrame(drawing);
    };
  }, [path, container, previous, timestamps, tail, attempt]);

  useEffect(() => {
    if (following && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown, following, wrap, filter]);

  const scrolled = ({ target }) => setFollowing(target.scrollHeight - target.scrollTop - target.clientHeight < 24);
  const download = async () => {
    try {
      const response = await open("GET", path, {
        parameters: { container, previous, timestamps },
        accept: "text/plain, */*",
      });
      const url = URL.createObjectURL(await response.blob());
      const link = Object.assign(document.createElement("a"), { href: url, download: `${name}-${container}.log` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch (problem) {
      setError(problem);
    }
  };
  const word = filter.toLowerCase();
  const text = word ? shown.filter((line) => line.toLowerCase().includes(word)) : shown;
  return (
    <div class="logs">
      <div class="tools">
        <label class="inline">
          <span>Container</span>
          <select value={container} onChange={(event) => setContainer(event.target.value)}>
            {containers.map((one) => (
              <option key={one.name} value={one.name}>
                {one.name}
                {one.note && ` (${one.note})`}
              </option>
            ))}
          </select>
        </label>
        <label class="inline">
          <span>Last</span>
          <select value={tail} onChange={(event) => setTail(event.target.value)}>
            <option value="100">100 lines</option>
            <option value="1000">1000 lines</option>
            <option value="">{MOST} lines</option>
          </select>
        </label>
        <Check label="Previous" value={previous} onChange={setPrevious} />
        <Check label="Timestamps" value={timestamps} onChange={setTimestamps} />
        <Check
          label="Wrap"
          value={wrap}
          onChange={(value) => {
            remember("wrap", value ? "yes" : "");
            setWrap(value);
          }}
        />
        <span class="spring" />
        <input
          type="search"
          placeholder="Find in log"
          aria-label="Find in log"
          value={filter}
          onInput={(event) => setFilter(event.target.value)}
        />
        <Action icon="download" label="Download" onClick={download} />
      </div>
      <Problem error={error} onRetry={() => setAttempt(attempt + 1)} />
      <div class="log-box">
        <pre
          class={wrap ? "code log wrap" : "code log"}
          ref={box}
          onScroll={scrolled}
          tabIndex={0}
          role="log"
          aria-label="Log"
        >
          {text.join("\n")}
        </pre>
        {!following && (
          <button type="button" class="button primary to-end" onClick={() => setFollowing(true)}>
            To the end
          </button>
        )}
      </div>
      <p class="faint log-state">
        {state === "live" && <span class="mark live">following</span>}
        {(state === "loading" || (state === "failed" && !error)) && "Loading…"}
        {state === "ended" && (
          <>
            The log ends here. <Action label="Read again" onClick={() => setAttempt(attempt + 1)} />
          </>
        )}{" "}
        {word && `${text.length} of ${shown.length} lines`}
      </p>
    </div>
  );
}

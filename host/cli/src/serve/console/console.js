// Shows changes as they happen. Pages work without it.
"use strict";

(() => {
  const status = document.getElementById("live");
  if (!status || !window.EventSource) {
    return;
  }

  const text = document.createElement("span");
  text.setAttribute("role", "status");
  const button = document.createElement("button");
  button.className = "quiet";
  status.append(text, " ", button);
  status.hidden = false;

  let source = null;
  let timer = null;
  let isPaused = false;
  // Changes may have been missed.
  let isBehind = false;

  const concerns = (change) => {
    const { agent, session, name } = document.getElementById("main").dataset;
    return (
      (agent === undefined || agent === change.agent) &&
      // A page of an agent lists its sessions, too.
      (session === change.session || (session === undefined && name === undefined) ||
        (session === undefined && change.session === null)) &&
      (name === undefined || name === change.name)
    );
  };

  // Someone who fills in a form or chooses versions keeps the page.
  const isBusy = () => {
    const main = document.getElementById("main");
    const chosen = [...main.querySelectorAll("input, textarea")].some(
      (input) => input.checked !== input.defaultChecked || input.value !== input.defaultValue,
    );
    return chosen || (main.contains(document.activeElement) && document.activeElement !== main);
  };

  const refresh = async (told = "Changed: load the page again") => {
    if (isBusy()) {
      text.textContent = told;
      return;
    }
    try {
      const reply = await fetch(location.href, { credentials: "same-origin" });
      if (!reply.ok || reply.redirected) {
        return;
      }
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      const main = page.getElementById("main");
      if (main && source && !isBusy()) {
        document.getElementById("main").replaceWith(main);
        text.textContent = `Updated ${new Date().toLocaleTimeString()}`;
      }
    } catch {
      // The next change tries again.
    }
  };

  const changed = (event) => {
    if (concerns(JSON.parse(event.data))) {
      clearTimeout(timer);
      // Several changes at once are one.
      timer = setTimeout(() => refresh(), 200);
    }
  };

  const stop = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
    text.textContent = "";
  };

  const start = () => {
    source = new EventSource("/events");
    source.addEventListener("ready", () => {
      text.textContent = "Live";
      if (isBehind) {
        isBehind = false;
        refresh("May have changed: load the page again");
      }
    });
    source.addEventListener("saved", changed);
    source.addEventListener("deleted", changed);
    source.addEventListener("missed", () => refresh());
    source.addEventListener("error", () => {
      text.textContent = source?.readyState === EventSource.CLOSED ? "Not live" : "Connecting";
    });
  };

  // A browser opens few connections to a host over HTTP/1.1: with a stream in each hidden tab, no
  // further page would load.
  const follow = () => {
    button.textContent = isPaused ? "Show changes" : "Pause";
    if (isPaused || document.hidden) {
      isBehind = true;
      stop();
    } else if (!source) {
      start();
    }
  };

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  follow();
})();

// Live updates and relative times. Every page works without this file. Texts from the server are only ever put into
// the page as text.
"use strict";

(() => {
  // The difference between the cloud's clock and this one, so that "3 s ago" is right on a wrong clock too.
  const skew = Number(document.body.dataset.now || Date.now()) - Date.now();
  const cloudNow = () => Date.now() + skew;

  const relative = (ms) => {
    const past = cloudNow() - ms;
    const secs = Math.floor(Math.abs(past) / 1000);
    if (past >= 0 && secs < 5) return "just now";
    const span = secs < 60 ? `${secs} s` : secs < 3600 ? `${Math.floor(secs / 60)} min`
      : secs < 86400 ? `${Math.floor(secs / 3600)} h` : `${Math.floor(secs / 86400)} d`;
    return past >= 0 ? `${span} ago` : `in ${span}`;
  };

  const showTimes = (root) => {
    for (const time of root.querySelectorAll("time[data-ms]")) {
      const text = relative(Number(time.dataset.ms));
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // Parts of the page that say which events concern them are fetched again when one comes.
  const wanted = new Set();
  let timer = 0;
  let fetching = false;

  const refresh = async () => {
    timer = 0;
    if (fetching || document.hidden) { schedule(1000); return; }
    fetching = true;
    const ids = [...wanted];
    wanted.clear();
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.redirected || !answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ids) {
        const [now, then] = [fresh.getElementById(id), document.getElementById(id)];
        if (!now || !then || then.contains(document.activeElement)) continue;
        showTimes(now);
        if (now.innerHTML !== then.innerHTML || now.className !== then.className) then.replaceWith(document.adoptNode(now));
      }
    } catch {
      // The link is gone; the stream's own reconnect tells when it is back.
    } finally {
      fetching = false;
    }
  };

  const schedule = (ms) => { if (!timer) timer = setTimeout(refresh, ms); };

  const concern = (kind, href) => {
    for (const part of document.querySelectorAll("[data-live]")) {
      if (!part.dataset.live.split(" ").includes(kind)) continue;
      if (part.dataset.only && !href.endsWith(part.dataset.only)) continue;
      wanted.add(part.id);
    }
    if (wanted.size) schedule(250);
  };

  const feedLine = (line) => {
    const item = document.createElement("li");
    item.className = `${line.tone} fresh`;
    item.dataset.kind = line.kind;
    const box = document.createElement("div");
    const title = document.createElement(line.href ? "a" : "strong");
    if (line.href) title.href = line.href;
    title.textContent = line.title;
    const detail = document.createElement("span");
    detail.className = "muted small block";
    const text = document.createElement("bdi");
    text.textContent = line.detail;
    detail.append(text);
    box.append(title, detail);
    const time = document.createElement("time");
    time.className = "muted small";
    time.dataset.ms = line.at_ms;
    time.textContent = relative(line.at_ms);
    item.append(document.createElement("i"), box, time);
    return item;
  };

  const say = (tone, text) => {
    for (const pill of document.querySelectorAll("[data-stream-state]")) {
      pill.className = `pill ${tone}`;
      pill.querySelector("span").textContent = text;
    }
  };

  // A browser has six connections to a host over HTTP/1.1, and every stream holds one: only the tabs that are looked at
  // have a stream, or the seventh tab could not even load its page.
  const listen = (url) => {
    const feed = document.querySelector("[data-feed]");
    let stream = null;
    let wasLost = false;
    const open = () => {
      if (stream) return;
      stream = new EventSource(feed ? `${url}?after=${feed.dataset.last}` : url);
      stream.onopen = () => {
        say("good", "Live");
        // A feed names the last event it shows and gets what came since; other parts may have missed something between
        // the making of the page and now.
        if (feed && !wasLost) return;
        wasLost = false;
        for (const part of document.querySelectorAll("[data-live]")) wanted.add(part.id);
        schedule(250);
      };
      stream.onerror = () => {
        wasLost = true;
        say("warn", stream?.readyState === EventSource.CLOSED ? "Ended; reload the page" : "Reconnecting");
      };
      stream.onmessage = (message) => {
        const line = JSON.parse(message.data);
        concern(line.kind, line.href);
        if (!feed) return;
        feed.dataset.last = line.seq;
        feed.prepend(feedLine(line));
        while (feed.children.length > Number(feed.dataset.max)) feed.lastElementChild.remove();
        for (const empty of document.querySelectorAll(".feed-empty")) empty.hidden = true;
      };
    };
    const close = () => {
      stream?.close();
      stream = null;
      wasLost = true;
    };
    const follow = () => (document.hidden ? close() : open());
    document.addEventListener("visibilitychange", follow);
    addEventListener("pagehide", close);
    addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
    follow();
  };

  addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.querySelector(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
    }
  });

  // A form with this field is one order however often it is sent.
  for (const field of document.querySelectorAll("[data-once]")) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    field.value = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  const current = document.querySelector(".nav [aria-current]");
  if (current && matchMedia("(max-width: 860px)").matches) {
    current.scrollIntoView({ inline: "center", block: "nearest" });
  }

  showTimes(document);
  setInterval(() => showTimes(document), 5000);
  if (document.body.dataset.stream) listen(document.body.dataset.stream);
})();

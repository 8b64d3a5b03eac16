// Follows the run that the page's address names, shows what comes, and tells the page server.
const asked = new URLSearchParams(location.search);
const report = { version: 0, ids: [], opened: 0, errors: 0, closed: 0, resets: 0, strays: 0, ready: null };

let telling = false;
let news = false;
async function tell() {
  news = true;
  if (telling) return;
  telling = true;
  while (news) {
    news = false;
    report.version += 1;
    const figures = `connections ${report.opened}, errors ${report.errors}, closed ${report.closed}`;
    const end = report.end ? `, ${report.end.status} with ${report.end.totalEvents} events` : "";
    document.getElementById("state").textContent = figures + end;
    await fetch("/report", { method: "POST", body: JSON.stringify(report) });
  }
  telling = false;
}

// The client under test does not know that it is watched.
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    report.opened += 1;
    const note = () => {
      report.ready = this.readyState;
      tell();
    };
    this.addEventListener("open", note);
    this.addEventListener("error", () => {
      report.errors += 1;
      if (this.readyState === EventSource.CLOSED) report.closed += 1;
      note();
    });
  }
};

function onEvent(event) {
  const row = document.querySelector("table").insertRow();
  for (const cell of [event.seq, event.type, event.ts]) row.insertCell().textContent = cell;
  report.ids.push(event.seq);
  tell();
}

function onReset() {
  report.resets += 1;
  tell();
}

function onEnd(end) {
  report.end = end;
  tell();
}

const stream = asked.get("stream");
if (asked.get("client") === "document") {
  follow(stream, { onEvent, onReset, onEnd });
} else {
  const source = new EventSource(stream);
  source.addEventListener("canonical_event", (frame) => {
    const event = JSON.parse(frame.data);
    if (frame.lastEventId !== String(event.seq)) report.strays += 1;
    onEvent(event);
  });
  source.addEventListener("reset", onReset);
  source.addEventListener("end", (frame) => onEnd(JSON.parse(frame.data)));
}

// Keeps the page from being loaded until the run is over: that is when a picture is taken.
if (asked.has("picture")) {
  document.body.append(Object.assign(new Image(), { src: "/when/end", hidden: true }));
}

"use strict";
// Draws every chart of the page, and hands the trace to Perfetto when the reader asks for it.
for (const figure of document.querySelectorAll("figure.chart")) {
  const drawing = figure.querySelector(".drawing");
  const specification = JSON.parse(figure.querySelector("script").textContent);
  vegaEmbed(drawing, specification, { renderer: "svg", actions: false })
    .then(() => { figure.dataset.drawn = "true"; })
    .catch((error) => { drawing.textContent = "This chart could not be drawn: " + error; console.error(error); });
}
const perfetto = document.querySelector("button.perfetto");
if (perfetto) {
  perfetto.addEventListener("click", () => {
    const site = "https://ui.perfetto.dev";
    const packed = atob(document.querySelector("#trace-file").textContent);
    const buffer = Uint8Array.from(packed, (letter) => letter.charCodeAt(0)).buffer;
    const other = window.open(site);
    const knocking = setInterval(() => other.postMessage("PING", site), 100);
    setTimeout(() => clearInterval(knocking), 60000);
    window.addEventListener("message", (event) => {
      if (event.source !== other || event.data !== "PONG") return;
      clearInterval(knocking);
      other.postMessage({ perfetto: { buffer: buffer, title: document.title, fileName: "trace.json.gz" } }, site);
    });
  });
}

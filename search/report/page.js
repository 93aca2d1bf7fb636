"use strict";
// Draws every figure in the page's own colours, again when the system changes from light to dark.
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // A heat map fades into the page; of opaque colours plotly knows which text is readable on them.
  function faded(trace) {
    return trace.type === "heatmap"
      ? { ...trace, colorscale: [[0, colour("--card")], ...trace.colorscale.slice(1)] } : trace;
  }

  function dressed(layout) {
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), tickcolor: colour("--line") };
    return {
      ...layout,
      font: { ...layout.font, color: colour("--text") },
      hoverlabel: { ...layout.hoverlabel, bgcolor: colour("--card"), bordercolor: colour("--line"),
                    font: { ...layout.hoverlabel.font, color: colour("--text") } },
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
    };
  }

  function draw() {
    for (const [name, spec] of Object.entries(figures)) {
      Plotly.react("figure-" + name, spec.data.map(faded), dressed(spec.layout), { responsive: true, displayModeBar: false });
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();

(async () => {
  const root = document.documentElement;
  try {
    const charts = JSON.parse(document.getElementById("charts").textContent);
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), c => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const code = document.createElement("script");
    code.textContent = await new Response(unpacked).text();
    document.head.append(code);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const figures = [...document.querySelectorAll("figure[data-chart]")].filter(f => charts[f.dataset.chart]);
    const look = chart => {
      const style = getComputedStyle(root);
      const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
      const layout = JSON.parse(JSON.stringify(chart.layout));
      for (const axis of ["xaxis", "yaxis"]) {
        layout[axis] = {...layout[axis], gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true};
      }
      return {...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
        font: {color: ink.trim(), family: "system-ui, sans-serif", size: 12}, margin: {l: 50, r: 16, t: 12, b: 44}};
    };
    const drawn = new Set();
    const draw = async figure => {
      const chart = charts[figure.dataset.chart], live = figure.querySelector(".live");
      live.hidden = false;
      live.style.height = figure.dataset.chart === "curves" ? "380px" : "260px";
      await Plotly.react(live, chart.data, look(chart), {responsive: true, displayModeBar: false});
      figure.querySelector(".still").hidden = true;
      drawn.add(figure);
    };
    // Within a fold there is no width to draw at.
    const visible = () => figures.filter(figure => !drawn.has(figure) && !figure.closest("details:not([open])"));
    const drawVisible = async () => { for (const figure of visible()) await draw(figure); };
    await drawVisible();
    document.addEventListener("toggle", drawVisible, true);
    dark.addEventListener("change", () => [...drawn].forEach(draw));
    root.dataset.charts = "drawn";
  } catch (reason) {
    for (const live of document.querySelectorAll(".live")) live.hidden = true;
    for (const still of document.querySelectorAll(".still")) still.hidden = false;
    root.dataset.charts = "still";
  }
})();

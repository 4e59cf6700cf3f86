/* Draws the charts of the report over their static pictures. Without this script every picture and table is still there. */
(function () {
  "use strict";
  const PALETTE = 10;
  const DASH = [0, 2, 0, 1, 3, 0, 2, 0, 1, 3]; /* lightweight-charts line styles: solid, dashed, solid, dotted, large dashed … */
  const DASH_PX = [[], [7, 4], [], [2, 3], [12, 4], [], [7, 4], [], [2, 3], [12, 4]];
  const live = [];

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function line(place) { return colour("--c" + (place % PALETTE)); }
  function faded(hex, share) { return hex + Math.round(share * 255).toString(16).padStart(2, "0"); }
  function say(value, unit) {
    if (value === null || value === undefined || Number.isNaN(value)) { return "–"; }
    const text = unit === "growth" ? value.toFixed(3) : (value * 100).toFixed(1) + "%";
    return text.replace("-", "−");
  }

  /* Times come as a first value and steps, shared by the lines that have the same. */
  function unpack(chart) {
    chart.clocks.forEach(function (clock) { for (let k = 1; k < clock.length; k += 1) { clock[k] += clock[k - 1]; } });
    chart.lines.forEach(function (one) { one.times = chart.clocks[one.clock]; });
    return chart;
  }

  function legend(figure, chart, shown, changed) {
    const list = figure.querySelector(".legend");
    const now = [];
    list.querySelectorAll("li").forEach(function (item, place) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "chip";
      button.setAttribute("aria-pressed", String(shown[place]));
      while (item.firstChild) { button.appendChild(item.firstChild); }
      now[place] = document.createElement("span");
      now[place].className = "now";
      button.appendChild(now[place]);
      button.addEventListener("click", function () {
        shown[place] = !shown[place];
        button.setAttribute("aria-pressed", String(shown[place]));
        changed(place);
      });
      item.replaceWith(button);
    });
    return function (values) { values.forEach(function (value, place) { now[place].textContent = chart.lines[place].look === "dots" && (value === null || value === undefined) ? "" : say(value, chart.unit); }); };
  }

  function lastValues(chart) { return chart.lines.map(function (one) { return one.look === "dots" ? null : one.values[one.values.length - 1]; }); }

  function overTime(figure, chart) {
    const box = figure.querySelector(".live");
    const shown = chart.lines.map(function () { return true; });
    const toggle = figure.querySelector(".toggle");
    let drawn = null;
    let series = [];
    const update = legend(figure, chart, shown, function (place) { series[place].applyOptions({ visible: shown[place] }); });
    if (toggle) {
      toggle.hidden = false;
      toggle.addEventListener("click", function () {
        const on = toggle.getAttribute("aria-pressed") !== "true";
        toggle.setAttribute("aria-pressed", String(on));
        drawn.priceScale("right").applyOptions({ mode: on ? 1 : 0 });
      });
    }
    function draw() {
      if (drawn) { drawn.remove(); }
      const lwc = window.LightweightCharts;
      const format = { type: "custom", minMove: 0.0001, formatter: function (value) { return say(value, chart.unit); } };
      drawn = lwc.createChart(box, {
        autoSize: true,
        layout: { background: { color: "transparent" }, textColor: colour("--muted"), attributionLogo: false, fontSize: 12 },
        grid: { vertLines: { visible: false }, horzLines: { color: colour("--line") } },
        rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.05, bottom: 0.06 }, mode: toggle && toggle.getAttribute("aria-pressed") === "true" ? 1 : 0 },
        timeScale: { borderVisible: false, fixLeftEdge: true, fixRightEdge: true },
        handleScroll: { mouseWheel: false, vertTouchDrag: false },
        handleScale: { mouseWheel: false },
      });
      series = chart.lines.map(function (one, place) {
        const main = place === 0;
        const base = { lineWidth: main ? 3 : 1.5, visible: shown[place], priceLineVisible: false, lastValueVisible: main, priceFormat: format };
        const hue = line(place);
        if (one.look === "dots") {
          return drawn.addSeries(lwc.LineSeries, Object.assign(base, { color: hue, lineVisible: false, lineWidth: 1, pointMarkersVisible: true, pointMarkersRadius: 4, lastValueVisible: false }));
        }
        if (one.look === "thin") {
          return drawn.addSeries(lwc.LineSeries, Object.assign(base, { color: faded(hue, 0.75), lineWidth: 1, lastValueVisible: false }));
        }
        if (chart.kind === "area" && main) {
          return drawn.addSeries(lwc.BaselineSeries, Object.assign(base, {
            baseValue: { type: "price", price: 0 }, lineWidth: 2,
            topLineColor: hue, topFillColor1: "transparent", topFillColor2: "transparent",
            bottomLineColor: hue, bottomFillColor1: faded(hue, 0.12), bottomFillColor2: faded(hue, 0.4),
          }));
        }
        return drawn.addSeries(lwc.LineSeries, Object.assign(base, { color: hue, lineStyle: DASH[place % PALETTE] }));
      });
      chart.lines.forEach(function (one, place) {
        series[place].setData(one.times.map(function (time, k) { return { time: time, value: one.values[k] }; }));
      });
      drawn.timeScale().fitContent();
      drawn.subscribeCrosshairMove(function (at) {
        if (!at.time) { update(lastValues(chart)); return; }
        update(series.map(function (one) { const point = at.seriesData.get(one); return point ? point.value : null; }));
      });
      update(lastValues(chart));
    }
    new ResizeObserver(function () { if (drawn) { drawn.timeScale().fitContent(); } }).observe(box);
    return draw;
  }

  function weights(figure, chart) {
    const box = figure.querySelector(".live");
    const stacked = chart.kind === "stack";
    const shown = chart.lines.map(function () { return true; });
    let drawn = null;
    const update = legend(figure, chart, shown, draw);
    function columns() {
      if (!stacked) { return chart.lines.map(function (one, place) { return shown[place] ? one.values : one.values.map(function () { return null; }); }); }
      const total = new Array(chart.lines[0].times.length).fill(0);
      return chart.lines.map(function (one, place) {
        return one.values.map(function (value, k) { total[k] += shown[place] ? value : 0; return total[k]; });
      });
    }
    function size() { return { width: Math.max(120, box.clientWidth), height: box.clientHeight }; }
    function draw() {
      if (drawn) { drawn.destroy(); }
      const values = columns();
      const order = chart.lines.map(function (_, place) { return place; });
      if (stacked) { order.reverse(); } /* the tallest sum lies at the back */
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
      const box_size = size();
      drawn = new window.uPlot({
        width: box_size.width, height: box_size.height,
        legend: { show: false },
        cursor: { points: { show: false }, drag: { x: true, y: false } },
        tzDate: function (seconds) { return window.uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"); },
        scales: { y: { range: function (_, low, high) { return stacked ? [0, Math.max(high, 0.01)] : [Math.min(low, 0), Math.max(high, 0.01)]; } } },
        axes: [
          Object.assign({}, axis, { grid: { show: false } }),
          Object.assign({}, axis, { size: 56, values: function (_, ticks) { return ticks.map(function (tick) { return Math.round(tick * 100) + "%"; }); } }),
        ],
        series: [{}].concat(order.map(function (place) {
          const hue = line(place);
          const solid = place >= PALETTE ? faded(hue, 0.6) : hue;
          return stacked ? { stroke: solid, width: 0, fill: solid, points: { show: false } }
            : { stroke: solid, width: 1.5, dash: DASH_PX[place % PALETTE], points: { show: false } };
        })),
        hooks: { setCursor: [function (self) {
          const k = self.cursor.idx;
          update(k === null || k === undefined ? lastValues(chart) : chart.lines.map(function (one) { return one.values[k]; }));
        }] },
      }, [chart.lines[0].times].concat(order.map(function (place) { return values[place]; })), box);
      update(lastValues(chart));
    }
    new ResizeObserver(function () {
      if (drawn && (drawn.width !== box.clientWidth || drawn.height !== box.clientHeight)) { drawn.setSize(size()); }
    }).observe(box);
    return draw;
  }

  document.querySelectorAll("figure[data-chart]").forEach(function (figure) {
    const source = document.getElementById(figure.dataset.chart);
    const chart = unpack(JSON.parse(source.textContent));
    if (!chart.lines.length || chart.lines[0].times.length < 2) { return; }
    figure.classList.add("drawn");
    const draw = chart.unit === "share" ? weights(figure, chart) : overTime(figure, chart);
    draw();
    live.push(draw);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { live.forEach(function (draw) { draw(); }); });
  requestAnimationFrame(function () { requestAnimationFrame(function () { window.__ready = true; }); });
})();

(function () {
  "use strict";
  function saver(format, icon) {
    return {
      name: "save-" + format,
      title: "Save as " + format.toUpperCase(),
      icon: Plotly.Icons[icon],
      click: function (plot) {
        Plotly.downloadImage(plot, { format: format, filename: plot.id, scale: format === "png" ? 2 : 1 });
      }
    };
  }
  var savers = [saver("svg", "camera"), saver("png", "disk")];
  var sources = Array.prototype.slice.call(document.querySelectorAll("script[data-figure]"));
  var drawn = sources.map(function (source) {
    var name = source.getAttribute("data-figure");
    var figure = JSON.parse(source.textContent);
    var target = document.getElementById(name);
    return Plotly.newPlot(target, figure.data, figure.layout, {
      displayModeBar: true,
      displaylogo: false,
      responsive: true,
      showSendToCloud: false,
      plotlyServerURL: "",
      modeBarButtons: [savers.concat(["zoom2d", "pan2d", "resetScale2d"])]
    });
  });
  Promise.all(drawn).then(function () {
    document.body.setAttribute("data-drawn", String(drawn.length));
  });
  function fit() {
    sources.forEach(function (source) {
      Plotly.Plots.resize(document.getElementById(source.getAttribute("data-figure")));
    });
  }
  window.matchMedia("print").addEventListener("change", fit);
})();

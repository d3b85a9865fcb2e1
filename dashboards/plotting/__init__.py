"""Charts of `analysis` in Vega-Lite, which the page and the exported file draw."""

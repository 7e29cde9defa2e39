"""Style sheet of the report: that of the explanations' page, and what a report has beside it."""

from __future__ import annotations

from search.pages.style import STYLE as _BASE

__all__ = ["STYLE"]

STYLE = (
    _BASE
    + """
:root { --heat-hue: #2f7ec2; --bad: #b5341e; --won: #c8442b; --full: #2f76b8; --stopped: #8494a3; --good: #2c7a3f; }
@media (prefers-color-scheme: dark) { :root { --heat-hue: #3f8fd6; --bad: #ff9a80; --won: #ff7c5c; --full: #6cb0ee;
  --stopped: #8b98a5; --good: #7fd18f; } }
.skip { position: absolute; left: -999px; }
.skip:focus { left: .5rem; top: .5rem; background: var(--paper); padding: .5rem; z-index: 9; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.scroll { position: relative; }
.over { color: var(--soft); margin: 0; font-size: .85rem; }
h1 { margin: 0 0 .4rem; font-size: 1.35rem; }
h3 { margin: 1rem 0 .25rem; } article h3 { margin-top: 0; }
h4 { color: var(--ink); font-size: .9rem; }
.verdict { font-size: 1.15rem; line-height: 1.4; max-width: 65ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(9.5rem, 100%), 1fr)); gap: .75rem;
  margin: 1rem 0; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; background: var(--band); }
.card p { margin: .1rem 0; } .card .soft { font-size: .8rem; }
h2.small { font-size: .8rem; font-weight: 600; margin: 0; border: 0; padding: 0; color: var(--soft); }
.big { font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.2; }
.notes { border-left: 3px solid var(--bad); padding: .3rem 0 .3rem 1.4rem; margin: .75rem 0; }
.plus { color: var(--good); } .minus { color: var(--bad); }
table.heat tbody th { vertical-align: middle; }
td.word { white-space: normal; min-width: 6rem; }
table.heat th { white-space: nowrap; }
table.heat td { min-width: 3.6rem; text-align: center; vertical-align: middle; border: 1px solid var(--paper);
  background: color-mix(in srgb, var(--heat-hue) calc(var(--heat, 0%) * .62), var(--band)); }
table.heat td small { color: inherit; opacity: .8; font-size: .68rem; }
table.heat td.none { background: none; border: 1px dashed var(--line); }
table.heat td.won { outline: 2px solid var(--won); outline-offset: -2px; font-weight: 700; }
table.heat thead th { text-align: center; } table.heat thead th:first-child { text-align: left; }
table.confusion td { min-width: 2.2rem; } table.confusion td.zero { background: none; color: var(--soft); }
table.confusion td.miss {
  background: color-mix(in srgb, var(--bad) calc(var(--heat, 0%) * .5 + 8%), var(--band)); }
table.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  vertical-align: bottom; max-height: 11rem; padding: .5rem .3rem; }
table.confusion thead th:first-child { writing-mode: horizontal-tb; transform: none; }
.wide { width: 100%; min-width: 640px; max-width: 1000px; height: auto; display: block; background: #fff;
  border-radius: 4px; }
.chart { margin: .75rem 0; }
.still svg { display: block; width: 100%; min-width: 300px; max-width: 900px; height: auto; }
[data-chart=curves] .still svg { min-width: 560px; }
.chart .live { width: 100%; overflow: hidden; }
.still text { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--line); stroke-width: 1; }
polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
polyline.won { stroke: var(--won); stroke-width: 3.2; } polyline.full { stroke: var(--full); }
polyline.stopped { stroke: var(--stopped); opacity: .45; }
.dot.won { fill: var(--won); } .dot.full { fill: var(--full); } .dot.stopped { fill: var(--stopped); opacity: .6; }
.legend { font-size: .8rem; color: var(--soft); }
.key { display: inline-block; width: 1.4rem; height: .25rem; vertical-align: middle; margin-left: .6rem; }
.key.won { background: var(--won); } .key.full { background: var(--full); }
.key.stopped { background: var(--stopped); opacity: .6; }
.slices { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: .5rem 1rem; }
.slices > * { min-width: 0; }
.meter { display: inline-block; width: 9rem; height: .6rem; background: var(--band); border: 1px solid var(--line);
  vertical-align: middle; } .meter span { display: block; height: 100%; background: var(--full); }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1rem; }
.pairs article { margin: 0; min-width: 0; }
.panels { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); margin: .5rem 0; }
pre { margin: .5rem 0; padding: .6rem .8rem; background: var(--band); border-radius: 4px; white-space: pre-wrap; }
summary:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
@media (max-width: 480px) { .verdict { font-size: 1.05rem; }
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media print { .chart .live { display: none; } .chart .still[hidden] { display: block; } .wide { min-width: 0; }
  .panels { grid-template-columns: repeat(4, 1fr); } .still svg, [data-chart=curves] .still svg { min-width: 0; }
  .card, article { break-inside: avoid; } .skip { display: none; } }
"""
)

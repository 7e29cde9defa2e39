"""The style sheet of the page: readable dark and light, on a telephone and on paper."""

from __future__ import annotations

__all__ = ["FRAGMENT_STYLE", "STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d0d7de; --band: #f6f8fa;
  --mark: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b3; --paper: #0d1117; --line: #30363d; --band: #161b22; --mark: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem; max-width: 1360px; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; font-weight: 600; }
h4 { font-size: .85rem; margin: .75rem 0 .25rem; color: var(--soft); font-weight: 600; }
p { margin: .4rem 0; max-width: 75ch; }
.soft, figcaption, small { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .5rem 0; list-style: none; }
a { color: var(--mark); }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible, a:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th { font-weight: 600; background: var(--band); vertical-align: bottom; overflow-wrap: normal; }
tbody th { text-align: left; font-weight: 500; background: none; vertical-align: top; }
td small { display: block; }
th:first-child, td:first-child, .word { text-align: left; }
details td, details th { white-space: normal; min-width: 7rem; }
.best { font-weight: 700; }
article { border: 1px solid var(--line); border-radius: 6px; padding: .75rem; margin: 1rem 0; break-inside: avoid; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: .6rem; }
.panels figure { margin: 0; }
.panels img { width: 100%; height: auto; display: block; border-radius: 3px; background: #000; }
figcaption { font-size: .75rem; line-height: 1.35; margin-top: .2rem; font-variant-numeric: tabular-nums; }
figcaption b { color: var(--ink); }
.sheet { margin: 1rem 0; }
.sheet img { max-width: 100%; height: auto; display: block; border-radius: 4px; background: #fff; }
.bar { height: .7rem; max-width: 22rem; border: 1px solid var(--line); border-radius: 2px; }
.ends { display: flex; justify-content: space-between; max-width: 22rem; font-size: .75rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem .9rem; margin: .5rem 0;
  font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
@media (max-width: 480px) { dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: .4rem; }
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media print { :root { --ink: #000; --soft: #333; --paper: #fff; --line: #999; --band: #eee; --mark: #000; }
  body { max-width: none; padding: 0; font-size: 9pt; } nav { display: none; }
  .panels { grid-template-columns: repeat(6, 1fr); } .scroll { overflow: visible; }
  th, td { padding: .1rem .25rem; overflow-wrap: normal; } table, td small { font-size: 6.5pt; }
  h2, h3, h4 { break-after: avoid; } .panels figure, .sheet, tr { break-inside: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""

FRAGMENT_STYLE = (
    ".explained .panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: .6rem; } "
    ".explained figure { margin: 0; } .explained img { width: 100%; height: auto; } "
    ".explained figcaption { font-size: .75rem; line-height: 1.35; }"
)
"""Of one image in a notebook."""

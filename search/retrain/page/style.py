"""What a month's page adds to the style sheet of the explanations' page."""

from __future__ import annotations

from search.pages.style import STYLE

__all__ = ["MONTH_STYLE"]

MONTH_STYLE = (
    STYLE
    + """
:root { --good: #116329; --bad: #a0111f; --wait: #7d4e00; --old: #8c959f; --new: #0b5cad; --error: #b5500f; }
@media (prefers-color-scheme: dark) {
  :root { --good: #56d364; --bad: #ff7b72; --wait: #e3b341; --old: #6e7681; --new: #58a6ff; --error: #f0883e; } }
body { max-width: 1180px; }
.verdict { border: 1px solid var(--line); border-left: .5rem solid var(--tone); border-radius: 6px;
  padding: .8rem 1rem; margin: 1rem 0; background: var(--band); }
.verdict strong { display: block; font-size: 1.3rem; line-height: 1.3; color: var(--tone); }
.promoted { --tone: var(--good); } .kept, .not-needed { --tone: var(--wait); } .refused { --tone: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: .8rem 0; }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: .55rem .75rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { font-size: .8rem; color: var(--soft); }
.checks { list-style: none; padding: 0; margin: .6rem 0; max-width: 75ch; }
.checks li { padding-left: 1.7rem; text-indent: -1.7rem; margin: .2rem 0; }
.checks li::before { display: inline-block; width: 1.7rem; text-indent: 0; font-weight: 700; }
.checks .yes::before { content: "✓"; color: var(--good); } .checks .no::before { content: "✗"; color: var(--bad); }
ul.said { padding-left: 1.2rem; margin: .5rem 0; max-width: 75ch; } ul.said li { margin: .2rem 0; }
.seen td { font-weight: 650; } .seen td:first-child::before { content: "● "; color: var(--error); }
.mix { width: 12rem; padding-block: .25rem; }
td:has(.mix) { min-width: 0; }
.mix i { display: block; height: .42rem; margin: .1rem 0; border-radius: 2px; min-width: 1px; }
.mix .old, .key .old { background: var(--old); } .mix .new, .key .new { background: var(--new); }
.key { font-size: .8rem; color: var(--soft); }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; vertical-align: -.08rem;
  margin: 0 .3rem 0 .8rem; }
.key i:first-child { margin-left: 0; } .key .right { background: var(--new); } .key .wrong { background: var(--error); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }
.pair > * { min-width: 0; }
.matrix th, .matrix td { padding: .2rem .35rem; text-align: center; }
.matrix td { min-width: 1.9rem; border: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.matrix thead th { font-weight: 400; background: none; border: 0; vertical-align: bottom; }
.label { display: inline-block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: .78rem; }
.matrix thead .label { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 8.5rem; }
.matrix tbody .label { max-width: 9rem; vertical-align: bottom; }
h3 { margin-top: 1rem; } article h3 { margin-top: 0; }
td.word { white-space: normal; min-width: 9.5rem; max-width: 20rem; }
.matrix thead td { border: 0; }
.matrix tbody th { text-align: right; white-space: nowrap; font-weight: 400; background: none; border: 0; }
.matrix .right { background: color-mix(in srgb, var(--new) calc(var(--s) * .55), transparent); }
.matrix .wrong { background: color-mix(in srgb, var(--error) calc(18% + var(--s) * .6), transparent); }
.down data { color: var(--bad); font-weight: 650; } .up data { color: var(--good); font-weight: 650; }
data { white-space: nowrap; }
.drawn { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; margin: .6rem 0; }
article .answers { font-size: .9rem; } article .answers b { font-weight: 650; }
article .panels { grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); }
.why { display: inline-block; font-size: .78rem; color: var(--soft); border: 1px solid var(--line); border-radius: 1rem;
  padding: .05rem .6rem; margin-bottom: .3rem; }
@media (max-width: 480px) { .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tile b { font-size: 1.2rem; } .drawn { max-width: none; width: 38rem; } .mix { width: 5.5rem; }
  .scroll th, .scroll td { padding-inline: .3rem; font-size: .8rem; } td.word { min-width: 6.6rem; } }
@media print { :root { --good: #000; --bad: #000; --wait: #000; } .verdict { background: none; }
  article .panels { grid-template-columns: repeat(7, 1fr); } .pair { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .label { font-size: 6.5pt; } .tile, .verdict { break-inside: avoid; } }
"""
)
"""Style of the page of a month."""

"""The report's look: one palette for light, one for dark, chosen by the reader's own setting."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d1f22; --quiet: #676b73; --line: #e4e1d9;
  --accent: #274c77; --good: 46 125 80; --bad: 190 52 48; --open: 176 122 16;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #b0609a; --s4: #8a6d00; --s5: #3a8fb7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --card: #1d2024; --ink: #e8e6e1; --quiet: #9a9ea6; --line: #32363c;
    --accent: #8fb8e8; --good: 92 190 130; --bad: 240 112 104; --open: 224 172 70;
    --s0: #56b4e9; --s1: #f0894a; --s2: #3fc79c; --s3: #d59ac4; --s4: #d9bd4a; --s5: #8fd0ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { font-size: 34px; line-height: 1.15; margin: 0 0 6px; letter-spacing: -0.02em; }
h2 { font-size: 21px; margin: 56px 0 4px; letter-spacing: -0.01em; }
h3 { font-size: 15px; margin: 0 0 6px; }
p { margin: 0 0 14px; }
a { color: var(--accent); }
.kicker { color: var(--quiet); font-size: 13px; letter-spacing: 0.08em; text-transform: uppercase; }
.quiet, caption { color: var(--quiet); font-size: 14px; }
.num { font-variant-numeric: tabular-nums; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin: 24px 0 0; padding: 0; list-style: none; }
.tiles li, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tiles li { padding: 12px 14px; }
.tiles b { display: block; font-size: 22px; letter-spacing: -0.01em; }
.tiles span { color: var(--quiet); font-size: 13px; }
.card { padding: 16px 18px; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap: 16px; }
.mark { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 13px;
  font-weight: 600;
  white-space: nowrap; }
.pass { color: rgb(var(--good)); background: rgb(var(--good) / 0.13); }
.fail { color: rgb(var(--bad)); background: rgb(var(--bad) / 0.13); }
.inconclusive, .unfinished { color: rgb(var(--open)); background: rgb(var(--open) / 0.15); }
.waiting { color: var(--quiet); background: rgb(128 128 128 / 0.13); }
ol.ladder { list-style: none; margin: 18px 0 0; padding: 0; border-left: 2px solid var(--line); }
ol.ladder li { position: relative; padding: 0 0 18px 26px; }
ol.ladder li:last-child { padding-bottom: 0; }
ol.ladder li::before { content: ""; position: absolute; left: -8px; top: 6px; width: 14px;
  height: 14px;
  border-radius: 50%; background: var(--paper); border: 3px solid var(--quiet); }
ol.ladder li.is-pass::before { border-color: rgb(var(--good)); background: rgb(var(--good)); }
ol.ladder li.is-fail::before { border-color: rgb(var(--bad)); background: rgb(var(--bad)); }
ol.ladder li.is-inconclusive::before { border-color: rgb(var(--open)); }
ol.ladder .name { font-weight: 650; margin-right: 8px; }
ol.ladder .kind { color: var(--quiet); margin-right: 8px; }
ol.ladder .facts { color: var(--quiet); font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; padding: 0 0 8px; }
th { text-align: left; font-weight: 600; padding: 8px 10px; border-bottom: 1px solid var(--line); }
th[scope=row] { white-space: nowrap; }
td { padding: 8px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
td.r, th.r { text-align: right; font-variant-numeric: tabular-nums; }
.heat table { border-collapse: separate; border-spacing: 3px; margin-left: -3px; }
.heat th, .heat td { border: 0; }
.heat td { border-radius: 8px; min-width: 92px; padding: 6px 9px;
  font-variant-numeric: tabular-nums; }
.heat td.none { background: rgb(128 128 128 / 0.05); }
.heat td.own { box-shadow: inset 0 0 0 1.5px rgb(128 128 128 / 0.45); }
.heat b { font-size: 16px; }
.heat small { display: block; font-size: 12px; white-space: nowrap; }
.heat td small, .heat td .quiet { color: inherit; opacity: 0.8; }
.up { color: rgb(var(--good)); } .down { color: rgb(var(--bad)); }
svg { display: block; width: 100%; height: auto; }
svg .grid { stroke: var(--line); } svg .tick { fill: var(--quiet); font-size: 11px; }
svg .raw { fill: none; stroke: var(--quiet); stroke-opacity: 0.32; stroke-width: 1; }
svg .loss { fill: none; stroke: var(--ink); stroke-width: 1.8; stroke-linejoin: round; }
svg .validation { fill: none; stroke-width: 1.2; stroke-dasharray: 4 3; }
svg.bar { height: 14px; border-radius: 4px; background: var(--line); margin: 3px 0; }
.legend { list-style: none; margin: 6px 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: 2px 16px;
  font-size: 13px; color: var(--quiet); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px;
  margin-right: 6px; }
.meter { display: block; height: 6px; border-radius: 3px; background: rgb(128 128 128 / 0.18);
  min-width: 80px;
  margin-top: 5px; }
.meter i { display: block; height: 100%; border-radius: 3px; background: var(--accent); }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 10px 0 0; }
summary { cursor: pointer; padding: 12px 16px; }
summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px;
  border-radius: 10px; }
details > div { padding: 0 16px 12px; }
.sample { border-top: 1px solid var(--line); padding: 10px 0; display: grid; gap: 2px 12px;
  grid-template-columns: 92px minmax(0, 1fr); font-size: 14px; }
.sample dt { color: var(--quiet); } .sample dd { margin: 0; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.sample code { unicode-bidi: isolate; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 64px; color: var(--quiet); font-size: 13px; }
@media print { details > div { display: block; } main { max-width: none; padding: 0; } }
"""

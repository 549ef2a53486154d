"""`report.html`: one file that tells a whole run, opens offline and holds no script.

Whatever a model, a recipe or a file said is escaped, and the page's own policy forbids it to load
anything: a report can be opened whoever's run it is of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from matura.core.disk import replace_atomically
from matura.core.ledger import spell_count, spell_seconds
from matura.core.types import Item, Outcome
from matura.ladder.transcript import Row, Sitting
from matura.report.charts import SERIES, bars, curve
from matura.report.corrected import told as told_corrections
from matura.report.events import told as told_events
from matura.report.facts import Facts, Samples, Share, Stage, facts
from matura.report.prompted import Prompted
from matura.report.prompted import told as told_prompts
from matura.report.style import STYLE

REPORT = "report.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
WORDS: dict[Outcome, str] = {
    "pass": "✓ pass",
    "fail": "✗ fail",
    "inconclusive": "? inconclusive",
}
SAMPLE_CHARACTERS = 1200
CELLS_SHOWN = 3


def write(run: Path) -> Path:
    """Writes `report.html` into the run's folder, whole or not at all, and returns its path.

    Raises:
        StoreError: no run there, a folder is not whole, or the disk refuses.
    """
    path = run / REPORT
    replace_atomically(path, page(facts(run)).encode("utf-8", "backslashreplace"))
    return path


def page(found: Facts) -> str:
    """The whole page."""
    title = f"{escape(found.name)}: report"
    body = "".join(
        (
            *_head(found),
            *_ladder(found),
            *_heat(found),
            *_corrections(found),
            *_curves(found),
            *_samples(
                found.samples, [(s.row.name, s.prompted) for s in found.stages if s.prompted]
            ),
            *_mixtures(found),
            *_lineage(found),
            *_costs(found),
            f"<footer>Matura {escape(found.version)}. Floors hold for the lower end of each 95 % "
            "interval. Every answer is in each stage's exams.json.</footer>",
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(found: Facts) -> Iterator[str]:
    states = found.status.stages
    passed = sum(stage.state == "passed" for stage in states)
    closed = [stage for stage in states if stage.state == "not passed"]
    if closed:
        verdict = f"The gate after <b>{escape(closed[0].name)}</b> is closed."
    elif passed == len(states):
        verdict = "Every stage passed its exams and forgot nothing that matters."
    else:
        verdict = f"{passed} of {len(states)} stages are made and passed."
    yield (
        f'<header><div class="kicker">Matura report</div><h1>{escape(found.name)}</h1>'
        f"<p>{verdict}</p>"
    )
    rows = [stage.row for stage in found.stages]
    sizes = [stage.parameters for stage in found.stages if stage.parameters]
    tiles = [
        (f"{passed} / {len(states)}", "stages passed"),
        (spell_count(sizes[-1]) if sizes else "–", "parameters"),
        (spell_count(sum(row.tokens for row in rows)), "tokens learned from"),
        (spell_seconds(sum(row.seconds for row in rows)), "time in all"),
        (f"{max((row.peak_rss_bytes for row in rows), default=0) / 1e9:.2f} GB", "peak memory"),
    ]
    yield '<ul class="tiles">'
    yield from (f'<li><b class="num">{value}</b><span>{name}</span></li>' for value, name in tiles)
    yield "</ul></header>"


def _ladder(found: Facts) -> Iterator[str]:
    yield _section(
        "ladder", "Ladder", "In climbing order, each stage with the verdict of its gate."
    )
    yield '<ol class="ladder">'
    by_name = {stage.row.name: stage for stage in found.stages}
    for state in found.status.stages:
        stage = by_name.get(state.name)
        if stage is None or state.state not in ("passed", "not passed"):
            mark = "waiting" if state.state == "waiting" else "unfinished"
            detail = f" {escape(state.detail)}" if state.detail else ""
            yield (
                f'<li class="is-{mark}"><span class="name">{escape(state.name)}</span>'
                f'<span class="mark {mark}">{escape(state.state)}</span>'
                f'<div class="facts">{detail}</div></li>'
            )
            continue
        row, outcome = stage.row, outcome_of(stage.row)
        facts_told = [
            f"{spell_count(row.tokens)} tokens" if row.tokens else "",
            spell_seconds(row.seconds),
            f"{row.peak_rss_bytes / 1e9:.2f} GB at most",
            *(_why(sitting) for sitting in row.sittings if sitting.outcome != "pass"),
        ]
        yield (
            f'<li class="is-{outcome}"><span class="name">{escape(row.name)}@{row.attempt}</span>'
            f'<span class="kind">{escape(stage.kind)}</span>'
            f'<span class="mark {outcome}">{WORDS[outcome]}</span>'
            f'<div class="facts num">{" · ".join(filter(None, facts_told))}</div></li>'
        )
    yield "</ol>"


def outcome_of(row: Row) -> Outcome:
    """A gate's verdict: the worst of its sittings'."""
    outcomes = {sitting.outcome for sitting in row.sittings}
    return "fail" if "fail" in outcomes else "inconclusive" if outcomes - {"pass"} else "pass"


def _why(sitting: Sitting) -> str:
    """What an outcome hangs on; of many cells the first few."""
    cells = (sitting.why or sitting.outcome).split("; ")
    more = f"; and {len(cells) - CELLS_SHOWN} more cells" if len(cells) > CELLS_SHOWN else ""
    return escape(f"{sitting.name}: {'; '.join(cells[:CELLS_SHOWN])}{more}")


def _heat(found: Facts) -> Iterator[str]:
    columns = found.columns
    names = dict.fromkeys(s.name for row in columns for s in row.sittings)
    if not names:
        return
    yield _section(
        "transcript",
        "Transcript",
        "Exams down, stages across. Each cell: score and change, 95 % interval, items. "
        "Framed: the exam's own stage.",
    )
    yield '<div class="heat scroll"><table><caption></caption><thead><tr><th scope="col">exam</th>'
    yield from (f'<th scope="col">{_head_of(row, columns)}</th>' for row in columns)
    yield "</tr></thead><tbody>"
    for name in names:
        yield f'<tr><th scope="row">{escape(name)}</th>'
        for row in columns:
            sitting = next((s for s in row.sittings if s.name == name), None)
            yield '<td class="none"></td>' if sitting is None else _cell(sitting, row.name)
        yield "</tr>"
    yield "</tbody></table></div>"


def _head_of(row: Row, columns: Sequence[Row]) -> str:
    """The stage's name; with its attempt where several stand side by side."""
    if sum(other.name == row.name for other in columns) == 1:
        return escape(row.name)
    return f'{escape(row.name)}@{row.attempt} <span class="quiet">{row.standing}</span>'


def _corrections(found: Facts) -> Iterator[str]:
    if found.corrections:
        yield _section(
            "corrections",
            "Corrections",
            "Attempts of one stage on the same items of every exam. A gain is better, also where "
            "less is better.",
        )
        yield from (told_corrections(told) for told in found.corrections)


def _cell(sitting: Sitting, stage: str) -> str:
    colour = {"pass": "good", "fail": "bad", "inconclusive": "open"}[sitting.outcome]
    # stronger where the score is surer of itself: the lower end of the interval, not its middle
    share = min(1.0, max(0.0, sitting.low)) if sitting.high <= 1.0 else 0.5
    alpha = 0.10 + 0.32 * share**2
    own = " own" if sitting.owner == stage else ""
    verdict = (
        "" if sitting.outcome == "pass" else f'<span class="mark {sitting.outcome}">'
        f"{WORDS[sitting.outcome]}</span>"
    )  # fmt: skip
    why = f' title="{_why(sitting)}"' if sitting.why else ""
    return (
        f'<td class="cell{own}" style="background:rgb(var(--{colour}) / {alpha:.2f})"{why}>'
        f"<b>{sitting.score:.3f}</b> {_change(sitting)}"
        f"<small>{sitting.low:.3f}–{sitting.high:.3f}</small><small>n {sitting.n}</small>"
        f"{verdict}</td>"
    )


def _change(sitting: Sitting) -> str:
    if sitting.change is None:
        return ""
    sign = "±0" if abs(sitting.change) < 0.0005 else f"{sitting.change:+.3f}".replace("-", "−")
    return f'<span class="quiet">{sign}</span>'


def _moved(stage: Stage) -> str:
    """How far a step moved the weights, by group: what a learning rate comes to."""
    if not stage.curve.moved:
        return ""
    parts = [f"{escape(name)} {ratio:.2%}" for name, ratio in stage.curve.moved.items()]
    return f'<p class="quiet">A step moves the weights by: {", ".join(parts)} (median).</p>'


def _curves(found: Facts) -> Iterator[str]:
    drawn = [
        (stage, curve(stage.row.name, stage.curve.losses, stage.curve.validation))
        for stage in found.trained
    ]
    if not any(chart for _, chart in drawn):
        return
    yield _section(
        "curves",
        "Learning curves",
        "Nats per learned token. Solid: training, smoothed over its raw values; dashed with dots: "
        "validation, each source by itself.",
    )
    yield '<div class="grid2">'
    for stage, chart in drawn:
        if not chart:
            continue
        told = [
            (f"{escape(name)} {points[-1][1]:.3f}", number)
            for number, (name, points) in enumerate(stage.curve.validation.items())
        ]
        compute = f'<p class="quiet">{escape(stage.compute)}</p>' if stage.compute else ""
        yield (
            f'<figure class="card" style="margin:0"><h3>{escape(stage.row.name)}</h3>{chart}'
            f"{_legend(told)}{_moved(stage)}{compute}</figure>"
        )
    yield "</div>"
    yield from (told_events(s.row.name, s.events) for s in found.trained if s.events)


def _legend(parts: Iterable[tuple[str, int]]) -> str:
    items = "".join(
        f'<li><i style="background:var(--s{number % SERIES})"></i>{name}</li>'
        for name, number in parts
    )
    return f'<ul class="legend num">{items}</ul>'


def _samples(samples: Sequence[Samples], answers: Sequence[tuple[str, Prompted]]) -> Iterator[str]:
    if not samples and not answers:
        return
    yield _section(
        "samples",
        "Samples",
        "Of each exam's last sitting: a few right answers and the worst ones, tags shown; and each "
        "stage's eval prompts, if it had any.",
    )
    for told in samples:
        cell = told.score.overall
        opened = " open" if told.outcome != "pass" else ""
        broken = f", {told.score.broken} broken" if told.score.broken else ""
        likelihood = told.score.settings.get("better") == "lower"
        wrong = sum(item.grade < 1 and not item.error for item in told.score.items)
        what = "" if likelihood else f", {wrong or 'none'} wrong"
        yield (
            f"<details{opened}><summary><b>{escape(told.exam)}</b> after {escape(told.stage)} "
            f'<span class="mark {told.outcome}">{WORDS[told.outcome]}</span> '
            f'<span class="quiet num">{cell.score:.3f}, {cell.n} items{what}{broken}</span>'
            "</summary><div>"
        )
        for item in told.wrong:
            yield _sample(item, "✗", likelihood)
        for item in told.right:
            yield _sample(item, "✓", likelihood)
        yield "</div></details>"
    yield from told_prompts(answers)


def _sample(item: Item, mark: str, likelihood: bool) -> str:
    told = [("text" if likelihood else "asked", item.prompt)]
    if item.gold:
        told.append(("expected", item.gold))
    told.append(("cost" if likelihood else "said", item.error or item.output))
    rows = "".join(
        f"<dt>{name}</dt><dd><code>{_short(text)}</code></dd>" for name, text in told if text
    )
    grade = f"{item.grade:.3f}" if likelihood else mark
    ended = "broke" if item.error else f"ended by {item.finish_reason}"
    ended = "bits per byte" if likelihood else ended
    problems = f"; {', '.join(item.problems)}" if item.problems else ""
    bucket = f"{item.bucket}, " if item.bucket and not likelihood else ""
    return (
        f'<dl class="sample"><dt>{grade}</dt><dd class="quiet">{escape(bucket + ended + problems)}'
        f"</dd>{rows}</dl>"
    )


def _short(text: str) -> str:
    cut = text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + " …"
    return escape(cut)


def _mixtures(found: Facts) -> Iterator[str]:
    mixed = [stage for stage in found.stages if stage.shares]
    if not mixed:
        return
    yield _section(
        "mixtures", "Mixtures and replay", "Shares of each stage's tokens: asked above, got below."
    )
    yield '<div class="grid2">'
    yield from (_mixture(stage) for stage in mixed)
    yield "</div>"


def _mixture(stage: Stage) -> str:
    shares = stage.shares
    asked = [(share.name, share.asked) for share in shares]
    got = [(share.name, share.got) for share in shares]
    told = [(_told(share), number) for number, share in enumerate(shares)]
    return (
        f'<div class="card"><h3>{escape(stage.row.name)}</h3>'
        f"{bars(asked, f'{stage.row.name}: shares asked')}"
        f"{bars(got, f'{stage.row.name}: shares got')}{_legend(told)}</div>"
    )


def _told(share: Share) -> str:
    name = share.name.removeprefix("replay:")
    kind = "replay of " if share.replayed else ""
    return (
        f"{kind}{escape(name)}: asked {share.asked:.1%}, got {share.got:.1%}, "
        f"{spell_count(share.tokens)}"
    )


def _lineage(found: Facts) -> Iterator[str]:
    if not found.lineage:
        return
    total = sum(found.lineage.values()) or 1
    yield _section(
        "lineage", "Lineage", "Where all the tokens came from, replays traced to their origin."
    )
    yield (
        '<div class="scroll"><table><thead><tr><th scope="col">origin</th>'
        '<th scope="col" class="r">tokens</th><th scope="col">share</th></tr></thead><tbody>'
    )
    for origin, tokens in sorted(found.lineage.items(), key=lambda pair: -pair[1]):
        yield (
            f'<tr><th scope="row">{escape(origin)}</th><td class="r">{tokens:,}</td>'
            f"<td>{tokens / total:.1%}{_meter(tokens / total)}</td></tr>"
        )
    yield "</tbody></table></div>"


def _meter(share: float) -> str:
    return f'<span class="meter"><i style="width:{100 * min(1.0, share):.1f}%"></i></span>'


def _costs(found: Facts) -> Iterator[str]:
    rows = [stage.row for stage in found.stages]
    longest = max((row.seconds for row in rows), default=0.0) or 1.0
    largest = max((row.peak_rss_bytes for row in rows), default=0) or 1
    yield _section("costs", "Time, memory and machine", "")
    yield (
        '<div class="scroll"><table><thead><tr><th scope="col">stage</th><th scope="col">time</th>'
        '<th scope="col">peak memory</th><th scope="col" class="r">tokens</th></tr></thead><tbody>'
    )
    for row in rows:
        yield (
            f'<tr><th scope="row">{escape(row.name)}@{row.attempt}</th>'
            f'<td class="num">{spell_seconds(row.seconds)}{_meter(row.seconds / longest)}</td>'
            f'<td class="num">{row.peak_rss_bytes / 1e9:.2f} GB'
            f"{_meter(row.peak_rss_bytes / largest)}</td>"
            f'<td class="r">{row.tokens:,}</td></tr>'
        )
    yield "</tbody></table></div>"
    for machine in found.machines:
        told = "; ".join(f"{name} {value}" for name, value in machine.items() if value)
        yield f'<p class="quiet" style="margin-top:12px">{escape(told)}</p>'


def _section(anchor: str, title: str, about: str) -> str:
    told = f'<p class="quiet">{about}</p>' if about else ""
    return f'<h2 id="{anchor}">{title}</h2>{told}'

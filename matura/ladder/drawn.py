"""What commands show, for the eye. Trained tokens stand out by colour, or by marks without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from matura.core.ledger import spell_count, spell_seconds, spell_value
from matura.core.types import Example, Score
from matura.data.check import Report
from matura.data.cleaner import Counts
from matura.data.too_long import compared
from matura.ladder.fetch import Fetched
from matura.ladder.preview import Preview, as_row
from matura.ladder.show import BatchSeen, Shown
from matura.ladder.transcript import COLOURS
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.ladder.plan import Plan
    from matura.ladder.rates import Sweep
    from matura.ladder.shares import Sweep as ReplaySweep

TRAINED, READ_ONLY, PADDING = "bold green", "dim", "dim italic"
WEIGHTED = "bold magenta"
"""Trained with another weight than 1."""
MARKS = ("⟦", "⟧")
"""Around what is trained where there are no colours."""


def drawn(shown: Shown, *, colours: bool) -> RenderableType:
    """The mixture as a tree, then the batch."""
    about = "≈ " if shown.sampled else ""
    counted = "estimated from a sample" if shown.sampled else "as trained"
    tree = Tree(f"[bold]{shown.name}[/]  {shown.vocab_size} ids, {counted}")
    for stage in shown.stages:
        branch = tree.add(
            f"[bold]{stage.name}[/]  {stage.kind}, {spell_count(stage.tokens)} tokens"
        )
        for part in stage.parts:
            got = "" if part.share_got is None else f", got {part.share_got:.1%}"
            approx = "" if part.exact else about
            trained = "" if part.trained_share is None else f", {part.trained_share:.0%} trained"
            there = spell_count(part.tokens_available)
            leaf = branch.add(
                f"{escape(part.name)}  asked {part.share_asked:.1%}{got}: "
                f"{spell_count(part.tokens)} of {approx}{there} tokens "
                f"(seen {part.seen:.2f} times){trained}"
            )
            for line in () if part.source is None else part.source.lines():
                leaf.add(Text(line, style="dim"))
    batch = shown.batch
    body: list[RenderableType] = [_tally(batch)]
    for row, (ids, weights, segments) in enumerate(
        zip(batch.ids, batch.weights, batch.segments, strict=True)
    ):
        body.append(Text(f"{batch.stage}, row {row}", style="bold"))
        body.append(drawn_row(shown.template, ids, weights, segments, colours=colours))
    more = sorted({w for row in batch.weights for w in row} - {0.0, 1.0})
    return Group(tree, Text(""), legend(colours=colours, more=more), *body)


def _tally(batch: BatchSeen) -> Text:
    """How much of the batch is what."""
    counts = batch.counts()
    tokens = sum(map(len, batch.ids))
    segments = counts.pop("segments")
    parts = ", ".join(f"{count / tokens:.1%} {name}" for name, count in counts.items())
    return Text(f"{len(batch.ids)} rows of {len(batch.ids[0])}, {segments} segments: {parts}")


def legend(*, colours: bool, more: Sequence[float] = ()) -> Text:
    """What the colours mean, or the marks where there are none; `more` are the weights besides 0
    and 1."""
    spelled = "".join(f"  ×{weight:g}" for weight in more)
    if not colours:
        return Text(f"{MARKS[0]}trained{MARKS[1]}{spelled}  read only  │ next segment  · padding")
    return Text.assemble(
        ("trained", TRAINED), (spelled, WEIGHTED), "  ", ("read only", READ_ONLY),
        "  │ next segment  ", ("·", PADDING), " padding",
    )  # fmt: skip


def drawn_row(
    template: Template,
    ids: Sequence[int],
    weights: Sequence[float],
    segments: Sequence[int],
    *,
    colours: bool,
) -> Text:
    """A row's tokens as text: trained ones stand out, with their weight where it is not 1; segments
    stand apart, padding is counted."""
    text = Text(no_wrap=False)
    place = 0
    while place < len(ids):
        end = place
        weight, segment = weights[place], segments[place]
        while end < len(ids) and (weights[end], segments[end]) == (weight, segment):
            end += 1
        if place and segments[place - 1] != segment:
            text.append("│" if segment else "")
        if not segment:
            text.append(f"·{end - place}", style=PADDING if colours else "")
        else:
            words = template.spell(ids[place:end])
            shown = words.replace("\n", "⏎\n")
            extra = f"×{weight:g} " if weight not in (0, 1) else ""
            if colours and extra:
                text.append(extra.strip(), style=f"{WEIGHTED} dim").append(shown, style=WEIGHTED)
            elif colours:
                text.append(shown, style=TRAINED if weight else READ_ONLY)
            else:
                text.append(f"{MARKS[0]}{extra}{shown}{MARKS[1]}" if weight else shown)
        place = end
    return text


def drawn_example(template: Template, name: str, example: Example, *, colours: bool) -> Group:
    """One rendered conversation."""
    trained = sum(weight != 0 for weight in example.weights)
    head = Text(f"{name}  {len(example.ids)} tokens, {trained} trained", style="bold")
    ones = [1] * len(example.ids)
    return Group(head, drawn_row(template, example.ids, example.weights, ones, colours=colours))


def drawn_plan(found: Plan) -> Group:
    """A row for each stage, the totals, then what to mind."""
    table = Table(title=f"plan of {found.recipe}", title_justify="left")
    table.add_column("stage")
    heads = ("tokens", "steps", "evals", "exams", "FLOPs", "data", "training", "exams", "in all")
    for head in (*heads, "disk"):
        table.add_column(head, justify="right")
    for stage in found.stages:
        spent = stage.seconds
        evaluating = spent.get("evaluating", 0.0) + spent.get("saving", 0.0)
        table.add_row(
            stage.name,
            spell_count(stage.tokens) if stage.tokens else "",
            str(stage.steps or ""),
            str(stage.evaluations or ""),
            f"{len(stage.exams)} + {len(stage.exams_again)}" if stage.steps else "",
            f"{stage.flops:.1e}" if stage.flops else "",
            spell_seconds(spent.get("data", 0.0)),
            spell_seconds(spent.get("training", 0.0)) if stage.steps else "",
            spell_seconds(evaluating + spent.get("exams", 0.0)) if stage.steps else "",
            spell_seconds(stage.total_s),
            _size(stage.disk_bytes),
        )
    how = "measured" if found.measured else "not measured"
    lines = [
        f"{spell_count(found.parameters)} parameters, {found.vocab_size} ids; {found.compute}; "
        f"{how} in {found.calibration_s:.0f} s",
        f"time {spell_seconds(found.seconds)}, "
        f"{found.among.told(found.memory_bytes, found.others_bytes)}, "
        f"disk {found.disk_bytes / 1e9:.2f} GB" + _price(found),
        f"disk: {_by_kind(found)}; mixed 0 MB (rows point into the tokens, nothing is copied)",
    ]
    lines += [
        f"an epoch of {stage.name}: {spell_count(stage.epoch_tokens)} tokens, "
        f"{stage.epoch_steps:,} steps of {stage.batch_tokens:,}; trained for "
        f"{stage.tokens / stage.epoch_tokens:.2f} of it"
        for stage in found.stages
        if stage.epoch_tokens and stage.kind == "pretrain"
    ]
    lines += [
        f"LoRA in {stage.name}: {spell_count(stage.trained_parameters)} of "
        f"{spell_count(found.parameters + stage.trained_parameters)} parameters learn"
        for stage in found.stages
        if "adapter" in stage.disk
    ]
    seen = [
        f"seen in {stage.name}: "
        + ", ".join(f"{name} {times:.2f} times" for name, times in stage.seen.items())
        for stage in found.stages
        if stage.seen
    ]
    absent = [f"not here: {line}" for line in found.absent]
    seen += [*_dialled(found), *found.inherited]
    warnings = [Text(f"mind: {warning}", style="yellow") for warning in found.warnings]
    return Group(table, *map(Text, [*lines, *seen, *absent]), *warnings)


def drawn_sweep(found: Sweep) -> Group:
    """A row for each try, then the suggestion as one can use it."""
    told = found.as_dict()
    title = f"{found.stage} of {found.recipe}, {found.start}: {found.steps} steps each"
    table = Table("factor", title=title, title_justify="left")
    for head in (*found.rates, "loss at the end"):
        table.add_column(head, justify="right")
    table.add_column("")
    for one in told["tried"]:
        end = "" if one["end"] is None else f"{one['end']:.3f}"
        note = one["stopped"] or ("worse than it began" if one["diverged"] else "")
        chosen = one["factor"] == found.suggestion.factor
        rates = (f"{rate:g}" for rate in one["rates"].values())
        table.add_row(f"×{one['factor']:g}", *rates, end, "suggested" if chosen else note)
    sets = " ".join(f"--set {line}" for line in found.sets())
    return Group(table, Text(found.suggestion.why), *([Text(sets)] if sets else []))


def drawn_branches(found: ReplaySweep) -> Group:
    """The parent, what may be lost, a row for each share; then what follows from it."""
    title = (
        f"{found.stage} of {found.recipe}, from {found.start}: {found.tokens:,} of its "
        f"{found.whole:,} tokens each"
    )
    exams = list(found.parent)
    heads = (f"{found.stage}: loss", *exams, *(n.rpartition(":")[2] for n in found.limits))
    table = Table(f"share of {found.of}", title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("")
    ended = [one for one in found.branches if not one.stopped]
    for one in ended[:1]:
        before = (f"{held.before:.3f}" for held in found.held(one))
        start = f"{found.learnt(one.points[0].losses):.3f}"
        table.add_row("parent", start, *(f"{found.parent[e]:.3f}" for e in exams), *before)
        limits = (f"{limit:.3f} worse" for limit in found.limits.values())
        table.add_row("at most", *[""] * (1 + len(exams)), *limits)
        table.add_section()
    for one in found.branches:
        if one.stopped:
            table.add_row(f"{one.share:g}", *[""] * len(heads), one.stopped)
            continue
        held = found.held(one)
        lost = [f"{h.after:.3f}{'' if h.within else ' !'}" for h in held]
        note = "suggested" if one.share == found.suggestion.share else ""
        note = note or ("enough" if found.enough(one) else "forgets")
        cells = (f"{found.end(one):.3f}", *(f"{one.exams[exam]:.3f}" for exam in exams))
        table.add_row(f"{one.share:g}", *cells, *lost, note)
    lines = [found.suggestion.why, f"rule: {found.rule}", found.command]
    return Group(table, *(Text(line) for line in lines if line))


def _price(found: Plan) -> str:
    """What it costs; on a rented machine also without the hours in which nothing is trained."""
    if found.cost is None:
        return ""
    told = f", cost {found.cost:.2f} at {found.price_per_hour:g} an hour"
    if found.measured:
        return told
    return f"{told}, {found.cost_without_data:.2f} if data are made ready elsewhere first"


def _dialled(found: Plan) -> Iterator[str]:
    """What the model's depth gave, a line for the model and one for each stage."""
    by_group: dict[str, list[str]] = {}
    for turned in found.dial:
        group, _, name = turned.place.rpartition(".")
        value = spell_value(turned.value)
        stated = (
            ""
            if turned.value == turned.derived
            else (f" (stated; the dial gives {spell_value(turned.derived)})")
        )
        by_group.setdefault(group, []).append(f"{name} {value}{stated}")
    for group, words in by_group.items():
        yield f"by the dial, {group}: {', '.join(words)}"


def _by_kind(found: Plan) -> str:
    """Bytes on disk by what they are."""
    kinds = dict.fromkeys(kind for stage in found.stages for kind in stage.disk)
    total = {kind: sum(stage.disk.get(kind, 0) for stage in found.stages) for kind in kinds}
    return ", ".join(f"{kind} {_size(size)}" for kind, size in total.items() if size)


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e10 else f"{size / 1e6:.0f} MB"


def drawn_scores(name: str, scores: Sequence[Score]) -> Table:
    """A row for each cell of each exam."""
    table = Table("exam", title=f"exams of {name}", title_justify="left")
    for head in ("score", "95 % interval", "n", "floor"):
        table.add_column(head, justify="right")
    table.add_column("outcome")
    for score in scores:
        for bucket, cell in {"": score.overall, **score.buckets}.items():
            table.add_row(
                f"  {bucket}" if bucket else Text(score.exam, style="bold"),
                f"{cell.score:.3f}",
                f"{cell.low:.3f}–{cell.high:.3f}",
                str(cell.n),
                "" if cell.floor is None else f"{cell.floor:g}",
                Text(cell.outcome, style=COLOURS[cell.outcome])
                if cell.floor is not None or not bucket
                else "",
            )
    return table


def drawn_check(report: Report) -> Group:
    """What is in a file; its errors are told elsewhere."""
    verdict = Text("ok", style="green") if report.ok else Text("not usable", style="red")
    kind = f"{report.kind} read as {report.format}" if report.format else report.kind
    head = Text.assemble((report.path, "bold"), f"  {kind}, {report.rows} rows  ", verdict)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.counts.items()))
    fields = ", ".join(f"{name} in {count}" for name, count in report.fields.most_common())
    lines = [head]
    if counts:
        lines.append(Text(f"  {counts}"))
    if fields:
        lines.append(Text(f"  fields: {fields}"))
    lines += [Text(f"  {line}") for line in compared(report.too_long)]
    if report.first:
        lines.append(Text("  first: " + report.first.replace("\n", "\n         "), style="dim"))
    return Group(*lines)


def drawn_cleaning(counts: Mapping[str, Counts]) -> Iterator[RenderableType]:
    """What became of each source, then a few changed places before and after."""
    table = Table(title="cleaned", title_justify="left")
    for head in ("source", "read", "kept", "changed", "made", "dropped"):
        table.add_column(head, justify="left" if head in ("source", "dropped") else "right")
    for name, one in counts.items():
        dropped = "\n".join(f"{number:,} {why}" for why, number in sorted(one.dropped.items()))
        figures = (f"{number:,}" for number in (one.read, one.kept, one.changed, one.made))
        table.add_row(escape(name), *figures, escape(dropped) or "none")
    yield table
    for one in counts.values():
        for sample in one.samples:
            yield Text(sample, style="dim")


def drawn_fetched(found: Sequence[Fetched]) -> RenderableType:
    """What is here now."""
    if not found:
        return Text("no source of this recipe needs the network")
    table = Table(title="fetched", title_justify="left")
    for head in ("stage", "source", "items", "characters", "licence"):
        table.add_column(head, justify="right" if head in ("items", "characters") else "left")
    for one in found:
        table.add_row(
            one.stage, one.source, f"{one.items:,}", f"{one.chars:,}", escape(one.licence)
        )
    return table


def drawn_preview(found: Preview) -> Group:
    """The examples, then the diversity report."""
    body: list[RenderableType] = []
    for example in found.examples:
        meta = ", ".join(f"{key} {example.meta[key]}" for key in ("bucket", "language"))
        body.append(Text(meta, style="dim"))
        for turn in as_row(example)["messages"]:
            words = [turn["content"], *(json.dumps(c) for c in turn.get("calls", ()))]
            body.append(
                Text.assemble((f"  {turn['role']}: ", "bold"), " ".join(filter(None, words)))
            )
    table = Table("diversity", title=f"lesson {found.lesson.kind}", title_justify="left")
    table.add_column("", justify="right")
    for name, value in vars_of(found.diversity).items():
        table.add_row(name.replace("_", " "), value)
    return Group(*body, table)


def vars_of(thing: object) -> dict[str, str]:
    """A dataclass's fields as words; counts by name on one line."""
    found: dict[str, str] = {}
    for name in getattr(thing, "__dataclass_fields__", {}):
        value = getattr(thing, name)
        found[name] = (
            ", ".join(f"{key} {count}" for key, count in sorted(value.items()))
            if isinstance(value, dict)
            else spell_value(value)
        )
    return found

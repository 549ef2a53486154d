"""What went wrong in training stands in the report, escaped, and steps in a row are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretend import pretend

from matura.core.ledger import METRICS
from matura.core.store import RECORD, publish, recorded
from matura.report.events import SHOWN, told
from matura.report.facts import facts
from matura.report.html import page


def event(at: int, done: str = "passed over", why: str = "step 3, rows <3>: loss 9") -> Any:
    """A ledger's row."""
    return {"step": at, "event": done, "line": "loss spike", "at": at, "why": why}


def test_steps_in_a_row_are_one_line() -> None:
    events = [event(3), event(3, "back to step 0"), event(0), event(1), event(2), event(9)]
    html = told("base", events)
    assert html.count("<tr>") == 1 + 4
    assert '<td class="num">0 to 2</td>' in html
    assert "back to step 0" in html
    assert "rows &lt;3&gt;" in html
    assert "<3>" not in html


def test_no_more_are_shown_than_can_be_read() -> None:
    html = told("base", [event(2 * k) for k in range(SHOWN + 5)])
    assert html.count("<tr>") == 1 + SHOWN
    assert "and 5 more" in html


def test_the_report_tells_them_from_the_ledger(tmp_path: Path) -> None:
    run = pretend(tmp_path, stages=1).run
    assert "red line" not in page(facts(run))
    base, work = run / "base@1", run / "base@1.work"
    written = ("files", "schema", "sha256")
    record = {name: value for name, value in recorded(base).items() if name not in written}
    base.rename(work)
    (work / RECORD).unlink()
    with (work / METRICS).open("a") as ledger:
        ledger.write(json.dumps(event(57, "back to step 40")) + "\n")
    publish(work, base, record)
    found = page(facts(run))
    assert "red line" in found
    assert "back to step 40" in found

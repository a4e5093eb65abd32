"""Why a ladder may be believed: planted faults that it caught, healthy runs that it let pass, what it ran on."""

from __future__ import annotations

from html import escape

from portdet.report.html import cell, section, swatch, table, words_table
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_parts import facts, findings, index_of
from portdet.report.ladder_words import breakable, status
from portdet.report.outcome import FALSE_ALARMS, Outcome, Planted

_YES, _NO = '<span class="ok">✓ yes</span>', '<span class="failed">✗ no</span>'


def power(report: LadderReport) -> str:
    """Planted faults: how many were caught and rightly named, beside published rules, and each of them."""
    outcomes = [o for o in report.outcomes if o.level == "power"]
    if not outcomes:
        return ""
    body = findings(report, outcomes)
    for outcome in outcomes:
        body += _bars(outcome.planted) + _gates(outcome.planted) if outcome.planted else ""
        body += _faults(outcome) if outcome.planted else ""
        unsure = [row for row in outcome.rows if not outcome.planted or row.status not in ("caught", "missed")]
        rows = [[escape(row.name), status(row), escape(row.words)] for row in unsure]
        body += words_table(["fault", "verdict", ""], rows, long=len(rows) > 12) if rows else ""
    note = (
        "Faults of real ports, planted one at a time in a healthy backend. What is missed here may be missed in yours."
    )
    return section("Power", note, body + facts(report, outcomes), anchor="power")


def _bars(planted: list[Planted]) -> str:
    """Shares as bars: this ladder, then published rules on the same faults."""
    quick = [fault for fault in planted if fault.one_step]
    caught = [fault for fault in planted if fault.caught]
    lines = [("This ladder: caught", len(caught), len(planted), "ours")]
    if len(quick) < len(planted):
        lines.append(("of those that show in one step", sum(f.caught for f in quick), len(quick), "ours"))
    lines.append(("of those caught: right place named first", sum(f.named for f in caught), len(caught), "ours"))
    for rule in dict.fromkeys(rule for fault in planted for rule in fault.rules):
        asked = [fault.rules[rule] for fault in planted if rule in fault.rules]
        lines.append((rule, sum(asked), len(asked), "theirs"))
    rows = "".join(
        f'<dt>{escape(words)}</dt><dd><span class="track"><span class="share {kind}" '
        f'style="width:{100 * part / max(whole, 1):.1f}%"></span></span><b>{part} of {whole}</b></dd>'
        for words, part, whole, kind in lines
    )
    return f'<div class="card"><dl class="bars">{rows}</dl></div>'


def _gates(planted: list[Planted]) -> str:
    """How many each gate was the first to catch."""
    count: dict[str, int] = {}
    for fault in planted:
        if fault.caught:
            count[fault.gate] = count.get(fault.gate, 0) + 1
    parts = " · ".join(f"{escape(gate or 'unnamed')} {number}" for gate, number in count.items())
    return f'<p class="quiet">Caught first by gate: {parts}.</p>' if parts else ""


def _faults(outcome: Outcome) -> str:
    """One row a fault, missed and wrongly named ones first; rest on a name to read what it stands for."""
    words = {row.name: row.words for row in outcome.rows}
    planted = sorted(outcome.planted, key=lambda fault: (fault.caught, fault.named))
    rules = list(dict.fromkeys(rule for fault in planted for rule in fault.rules))
    head = ["fault", "", "gate", "named first", "rightly", *map(escape, rules)]
    lines = []
    for fault in planted:
        mark = '<span class="ok">✓ caught</span>' if fault.caught else '<span class="failed">✗ missed</span>'
        wanted = "" if fault.named else f'<span class="words-of">planted in {breakable(fault.expected)}</span>'
        others = "".join(
            f"<td>{'' if rule not in fault.rules else '✓' if fault.rules[rule] else '—'}</td>" for rule in rules
        )
        right = (_YES if fault.named else _NO) if fault.caught else ""
        note = escape(words.get(fault.name, ""))
        lines.append(
            f'<tr><th class="words-cell" title="{note}">{escape(fault.name)}</th><td>{mark}</td>'
            f'{cell(escape(fault.gate))}<td class="name">{breakable(fault.first)}{wanted}</td><td>{right}</td>'
            f"{others}</tr>"
        )
    return table(head, lines, kind="faults", long=len(planted) > 12, name="planted faults")


def false_alarms(report: LadderReport) -> str:
    """What the gates said to healthy runs that did not set their tolerances."""
    found = [o for o in report.outcomes if FALSE_ALARMS in o.facts]
    rows = [
        [f"{swatch(index_of(report, o.backend))}{escape(o.backend)}", escape(o.level), escape(o.facts[FALSE_ALARMS]),
         escape("; ".join(f"{name}: {text}" for name, text in o.facts.items() if name != FALSE_ALARMS))]
        for o in found
    ]  # fmt: skip
    if not rows:
        return ""
    note = "Healthy runs that had no part in setting the tolerances, judged by the same rules: every alarm is false."
    return section("False alarms", note, words_table(["backend", "level", "false alarms", ""], rows), anchor="alarms")


def environment(report: LadderReport) -> str:
    """What it ran on, a column a backend, and what the ladder was asked."""
    names = list(report.environment)
    keys = list(dict.fromkeys(key for facts in report.environment.values() for key in facts))
    rows = [[escape(key), *(escape(report.environment[name].get(key, "")) for name in names)] for key in keys]
    known = {report.reference, *report.backends}
    heads = [f"{swatch(index_of(report, name)) if name in known else ''}{escape(name)}" for name in names]
    asked = {"levels": ", ".join(report.levels), "reference": report.reference, "seeds": str(report.seeds),
             "margin": f"{report.margin:g} AP50", **report.facts}  # fmt: skip
    plan = words_table(["asked", ""], ([escape(name), escape(text)] for name, text in asked.items()))
    ran = words_table(["", *heads], rows) if rows else ""
    return section("Ran on", "", f'<div class="tables wide">{ran}{plan}</div>', anchor="ran-on")


_READING = {
    "Cross/self ratio": (
        "The reference is run again and again with weights and inputs moved by one unit in the last place. What that "
        "does to a tensor is its own noise. The ratio is how far a backend lies from the reference, divided by that "
        "noise. About 1 is as equal as two programs can be; up to 4 counts as noise, up to 10 as doubtful, more as "
        "different."
    ),
    "Kink": (
        "A leaky ReLU has a corner at 0. Where a value lies so close to it that rounding decides the side, gradients "
        "jump, in a framework against itself too. That is an accident of one batch, a fault shows on every batch: so a "
        "tensor that differs is looked at again on two other batches, and is guilty only if it differs on all three."
    ),
    "Same bits, broken": (
        "Some things need no tolerance: names, shapes, types, NaN, batches, learning rates. They are the same or they "
        "are broken."
    ),
    "Guilty first": "Faults spread downstream. Of many guilty tensors the lowest level's first one is where to look.",
    "Inconclusive": (
        "Nothing was found guilty, but something could not be judged, or there were too few runs. It is not a pass."
    ),
    "Exit codes": "0 equivalent, 1 different, 2 inconclusive, 3 something could not run.",
}


def reading() -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _READING.items())
    return section(
        "How to read this page", "", f'<div class="card"><dl class="reading">{items}</dl></div>', anchor="reading"
    )

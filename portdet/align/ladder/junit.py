"""A ladder as JUnit XML, which CI systems read: a suite a level, a case a backend and one for each guilty row."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from pathlib import Path

from portdet.align.ladder.outcome import Outcome, Row
from portdet.files import write_text
from portdet.report.ladder_data import LadderReport

MOST = 50  # guilty rows a backend and level
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0


def save(path: Path, report: LadderReport) -> None:
    """Write `path`."""
    write_text(path, text(report))


def text(report: LadderReport) -> str:
    """The XML. A crash is an error, a difference a failure, what could not decide is skipped."""
    root = xml.Element("testsuites", name=f"portdet align {report.title}")
    for level in report.levels:
        outcomes = [outcome for outcome in report.outcomes if outcome.level == level]
        seconds = sum(outcome.seconds for outcome in outcomes)
        suite = xml.SubElement(root, "testsuite", name=level, time=f"{seconds:.3f}")
        for outcome in outcomes:
            _cases(suite, outcome)
        if not outcomes:
            case = xml.SubElement(suite, "testcase", classname=level, name="(nothing)", time="0.000")
            xml.SubElement(case, "error", message="this level was not reached")
        _count(suite)
    _count(root)
    xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _cases(suite: xml.Element, outcome: Outcome) -> None:
    name = f"{outcome.level}.{outcome.backend}"
    case = xml.SubElement(suite, "testcase", classname=name, name=outcome.backend, time=f"{outcome.seconds:.3f}")
    words = _clean(outcome.words)
    if outcome.crashed:
        xml.SubElement(case, "error", message=words).text = _clean(outcome.crashed)
    elif outcome.passed is False:
        xml.SubElement(case, "failure", message=words).text = _clean(f"first: {outcome.first}")
    elif outcome.passed is None:
        xml.SubElement(case, "skipped", message=f"inconclusive: {words}")
    else:
        xml.SubElement(case, "system-out").text = words
    guilty = [row for row in outcome.rows if row.guilty]
    for row in guilty[:MOST]:
        case = xml.SubElement(suite, "testcase", classname=name, name=_clean(_title(row)), time="0.000")
        xml.SubElement(case, "failure", message=_clean(row.words or row.status)).text = _figures(row)


def _title(row: Row) -> str:
    return f"{row.name} at step {row.step}" if row.step >= 0 else row.name


def _figures(row: Row) -> str:
    return (
        f"{row.status}; {row.max_rel:.3g} of the largest value apart, {row.tolerance:.3g} is allowed; cross/self "
        f"{row.ratio:.3g}; cosine {row.cosine:.6f}; mean error {row.signed_ulp:+.2g} ulp"
    )


def _count(parent: xml.Element) -> None:
    """tests, failures, errors, skipped of all cases below."""
    cases = list(parent.iter("testcase"))
    parent.set("tests", str(len(cases)))
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        parent.set(plural, str(sum(case.find(tag) is not None for case in cases)))


def _clean(words: str) -> str:
    return _FORBIDDEN.sub("?", words)

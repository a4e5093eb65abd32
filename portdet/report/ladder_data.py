"""What a ladder found, as plain data: the page is made from it, and align.json holds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from portdet.files import write_text
from portdet.outside import checked, parse_json
from portdet.report.align_run import AlignRun
from portdet.report.outcome import Outcome, to_plain


@dataclass
class LadderReport:
    """A finished (or stopped) ladder.

    title: the configuration's name. verdict: the finding in a sentence. passed: None where it could not decide.
    levels: those asked for, low to high. outcomes: in any order; a level that was asked for and has none was not
    reached. training: the curves of all backends, if they trained. command: what to type to get this again.
    environment: by backend, name -> text. facts: whatever else the plan says (self-runs, points), name -> text.
    """

    title: str
    verdict: str
    passed: bool | None
    reference: str
    backends: list[str]
    levels: list[str]
    outcomes: list[Outcome] = field(default_factory=list)
    training: AlignRun | None = None
    seeds: int = 1
    margin: float = 0.1
    command: str = ""
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def of(self, level: str, backend: str) -> Outcome | None:
        return next((o for o in self.outcomes if (o.level, o.backend) == (level, backend)), None)

    def to_json(self) -> str:
        plain = {**asdict(self), "outcomes": [to_plain(outcome) for outcome in self.outcomes]}
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str = "") -> LadderReport:
        """Raises PortdetError for text that is not a ladder's."""
        fix = "run `portdet align --level`"
        return checked(TypeAdapter(cls), parse_json(text, where, fix, nan=True), where, fix)

    def save(self, path: Path) -> None:
        write_text(path, self.to_json() + "\n")

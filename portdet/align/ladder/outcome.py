"""What one level of the ladder found on one backend. The data are the report's, which may not import this part."""

from portdet.report.outcome import (
    FALSE_ALARMS,
    GUILTY,
    LEVELS,
    Interval,
    Outcome,
    Planted,
    Row,
    Series,
    from_plain,
    load,
    save,
    to_plain,
)

__all__ = [
    "FALSE_ALARMS", "GUILTY", "LEVELS", "Interval", "Outcome", "Planted", "Row", "Series", "from_plain", "load", "save",
    "to_plain",
]  # fmt: skip

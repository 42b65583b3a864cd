"""Summaries of measured seconds: medians, ratios within rounds, and verdicts on claims."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple


class Record(NamedTuple):
    """The measurements of one contestant; 0 stands for what was not measured.

    Arguments:
        name: its name.
        seconds: of the measured blocks, one for each round.
        facts: its other facts, such as its test loss.
        set_up: seconds to import, load the data and build.
        set_up_mib: the largest memory until then, in MiB.
        first: seconds of the first block, which compiles and warms up.
        peak_mib: the largest memory in all, in MiB.
    """

    name: str
    seconds: list[float]
    facts: dict[str, Any]
    set_up: float = 0.0
    set_up_mib: float = 0.0
    first: float = 0.0
    peak_mib: float = 0.0

    @property
    def median(self) -> float:
        """The median of the measured blocks, in seconds."""
        return median(self.seconds)

    @property
    def warm_up(self) -> float:
        """Seconds of the first block minus the median: compiling and warming up."""
        return self.first - self.median

    @property
    def lowest(self) -> float:
        """The seconds of the fastest measured block."""
        return min(self.seconds)

    @property
    def highest(self) -> float:
        """The seconds of the slowest measured block."""
        return max(self.seconds)


class Claim(NamedTuple):
    """The claim that one contestant takes no more than some multiple of another's time.

    If a side has several names, the fastest counts.

    Arguments:
        title: the comparison, in words.
        ours: the names on one side.
        other: the names on the other side.
        required: the highest ratio at which it holds.
        hoped: the ratio that is hoped for, if any.
    """

    title: str
    ours: Sequence[str]
    other: Sequence[str]
    required: float
    hoped: float | None = None


class Verdict(NamedTuple):
    """A claim, measured.

    Arguments:
        title: the comparison, in words.
        ours: the fastest contestant on one side.
        other: the fastest contestant on the other side.
        ratio: the median over rounds of ours / other within a round.
        lowest: the lowest of these ratios.
        highest: the highest of them.
        required: the highest ratio at which the claim holds.
        hoped: the ratio that is hoped for, if any.
    """

    title: str
    ours: str
    other: str
    ratio: float
    lowest: float
    highest: float
    required: float
    hoped: float | None

    @property
    def word(self) -> str:
        """The verdict in a word."""
        if self.ratio > self.required:
            return "fails"
        if self.hoped is not None and self.ratio <= self.hoped:
            return "as hoped"
        return "holds"


def ratios(ours: Record, other: Record) -> list[float]:
    """Return ours / other in each round."""
    return [one / two for one, two in zip(ours.seconds, other.seconds, strict=True)]


def by_median(records: Sequence[Record]) -> list[Record]:
    """Return the records in order, the lowest median first."""
    return sorted(records, key=lambda record: record.median)


def fastest(records: Mapping[str, Record], names: Sequence[str]) -> Record | None:
    """Return the record with the lowest median among these names; None if none was measured."""
    measured = [records[name] for name in names if name in records]
    return min(measured, key=lambda record: record.median, default=None)


def judge(claims: Sequence[Claim], records: Sequence[Record]) -> list[Verdict]:
    """Judge the claims of which both sides were measured."""
    by_name = {record.name: record for record in records}
    verdicts = []
    for claim in claims:
        ours = fastest(by_name, claim.ours)
        other = fastest(by_name, claim.other)
        if ours is None or other is None:
            continue
        found = ratios(ours, other)
        verdict = Verdict(
            title=claim.title,
            ours=ours.name,
            other=other.name,
            ratio=median(found),
            lowest=min(found),
            highest=max(found),
            required=claim.required,
            hoped=claim.hoped,
        )
        verdicts.append(verdict)
    return verdicts


VERDICT_HEADER = (
    "ours / other",
    "ours",
    "other",
    "ratio (lowest … highest)",
    "required",
    "hoped",
    "verdict",
)


def verdict_rows(verdicts: Sequence[Verdict]) -> list[list[object]]:
    """Return the lines of a table under `VERDICT_HEADER`."""
    rows: list[list[object]] = []
    for verdict in verdicts:
        ratio = f"{verdict.ratio:.3f} ({verdict.lowest:.3f} … {verdict.highest:.3f})"
        rows.append(
            [
                verdict.title,
                verdict.ours,
                verdict.other,
                ratio,
                verdict.required,
                verdict.hoped or "",
                verdict.word,
            ]
        )
    return rows


def as_records(result: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return records from their JSON."""
    return [Record(**record) for record in result]

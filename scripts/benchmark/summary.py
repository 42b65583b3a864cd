"""What measured seconds amount to: medians, ratios within rounds, and claims that hold or do not. Pure functions."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple


class Record(NamedTuple):
    """What was measured of one contestant; 0 where something was not.

    Arguments:
        name: its name.
        seconds: of the measured blocks, one for each round.
        facts: what else it had to say, such as its test loss.
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
        """What the first block took beyond the median: compiling and warming up, in seconds."""
        return self.first - self.median


class Claim(NamedTuple):
    """One contestant takes no more than some multiple of another's time; where several are named, the faster counts.

    Arguments:
        title: what is compared.
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
    """A claim with what was measured: `ratio` is the median over rounds of ours / other within a round."""

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
        """Whether it holds."""
        if self.ratio > self.required:
            return "fails"
        return "as hoped" if self.hoped is not None and self.ratio <= self.hoped else "holds"


def ratios(ours: Record, other: Record) -> list[float]:
    """ours / other in each round."""
    return [one / two for one, two in zip(ours.seconds, other.seconds, strict=True)]


def fastest(records: Mapping[str, Record], names: Sequence[str]) -> Record | None:
    """The one with the lowest median among those of these names that were measured; None when none was."""
    return min(
        (records[name] for name in names if name in records),
        key=lambda record: record.median,
        default=None,
    )


def judge(claims: Sequence[Claim], records: Sequence[Record]) -> list[Verdict]:
    """The claims of which both sides were measured."""
    by_name = {record.name: record for record in records}
    verdicts = []
    for claim in claims:
        ours, other = fastest(by_name, claim.ours), fastest(by_name, claim.other)
        if ours is None or other is None:
            continue
        found = ratios(ours, other)
        verdicts.append(
            Verdict(
                claim.title,
                ours.name,
                other.name,
                median(found),
                min(found),
                max(found),
                claim.required,
                claim.hoped,
            )
        )
    return verdicts


def verdict_rows(verdicts: Sequence[Verdict]) -> list[list[object]]:
    """Lines of a table under `VERDICT_HEADER`."""
    return [
        [
            v.title,
            v.ours,
            v.other,
            f"{v.ratio:.3f} ({v.lowest:.3f} … {v.highest:.3f})",
            v.required,
            v.hoped or "",
            v.word,
        ]
        for v in verdicts
    ]


VERDICT_HEADER = (
    "ours / other",
    "ours",
    "other",
    "ratio (lowest … highest)",
    "required",
    "hoped",
    "verdict",
)


def as_records(result: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Records as JSON keeps them."""
    return [Record(**record) for record in result]

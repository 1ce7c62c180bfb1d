"""The table of the coverage: every headline's row, and why it lies outside its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FLOOR, CEILING = 0.927, 0.975

#: What widens an interval, in general or in one case; how much it does is measured beside it.
WIDE = {
    "mutual_information": "a bracket",
    "total_correlation": "a bracket, that of the information",
    "aggregate_mismatch": "a bracket, that of the information",
    "dimensionwise_kl": "a bracket, without and with a sample's own posterior",
    "active_units": "limits unit by unit",
    "active_fraction": "limits unit by unit",
    "passive_dimensions": "Wilson in every dimension",
    "linear_dimensions": "surely at its lower end, not excluded at its upper one",
    "tangent_rank": "order statistics of a whole number",
    "encoder_rank": "order statistics of a whole number",
    "collision_fraction": "counted as n / 2 pairs",
    "folded_fraction": "counted as n / 2 pairs",
    "told_by_mean_fraction": "counted as n / 2 pairs",
    "lower_lipschitz": "both ends of a pair share a value: ranks are those of n / 2",
    "lower_lipschitz_low": "both ends of a pair share a value: ranks are those of n / 2",
    "saturated_fraction": "the draws' error is added",
    "inference_gap": "upper end moved by the draws' bias",
    "log_likelihood_bound": "upper end moved by the draws' bias",
    "model_information": "the draws' error is added, upper end moved by their bias",
    "round_trip_r2": "the squared mean of the codes is all that varies, too flat for a jackknife",
    "round_trip_r2_prior": "the squared mean of the codes is all that varies, too flat for a "
    "jackknife",
    "digits round_trip_r2": "the clip narrows the value, not its interval",
    "digits round_trip_r2_prior": "the clip narrows the value, not its interval",
    "digits robust_round_trip_r2": "the clip narrows the value, not its interval",
    "copies": "copies count as one, though each has a draw of its own",
    "reidentification": "samples compete for the same codes: their mean varies less than they do",
}
#: Why a headline may be below the floor.
NARROW = {
    "folded_fraction": "less than one pair expected: Wilson's lower end is above the truth "
    "where one is seen",
}


def percent(share: float) -> str:
    """A share as a percentage of one decimal place; 100 only where it is."""
    told = f"{100 * share:.1f}"
    return "above 99.9" if told == "100.0" and share < 1 else told


def why(case: str, key: str, row: Mapping[str, Any]) -> str:
    """What was measured about a coverage above the ceiling; "not explained" where nothing
    explains it."""
    if "same" not in row:
        return "not measured in this run"
    if row["same"] >= CEILING:
        return f"{percent(row['same'])} % of the replications read the same value"
    if row.get("wilson", 0.0) > CEILING:
        return f"Wilson's own coverage at this share and n is {percent(row['wilson'])} %"
    name = key.rpartition("/")[2]  # of a group's headline
    parts = [WIDE.get(f"{case} {key}", WIDE.get(name, WIDE.get(case, "")))]
    if not parts[0]:
        return "not explained"
    if "plain" in row:
        parts.append(f"{row['without']}: {percent(row['plain'])} %")
    if "unclipped" in row:
        parts.append(f"unclipped it varies {row['unclipped']:.1f} times as much")
    if "width" in row:
        parts.append(f"{row['width']:.1f} times as long as its spread asks for")
    if "alone" in row and "plain" not in row:
        parts.append(f"value and spread alone: {percent(row['alone'])} %")
    return "; ".join(parts) if len(parts) > 1 else "not explained"


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as Markdown."""
    lines = [
        "| case, replications | headline | truth | coverage % | 95 % limits | misses | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in records:
        for key, row in record["headlines"].items():
            told, few = "", record["replications"] < 1000
            # Of few replications all may be covered at 95 % as well: nothing to explain yet.
            if row["coverage"] > CEILING and not (few and row["low"] <= CEILING):
                told = why(record["case"], key, row)
            if row["coverage"] < FLOOR:
                narrow = NARROW.get(key.rpartition("/")[2], "")
                below = "within the error of few" if few and row["high"] >= FLOOR else narrow
                told = f"**below 92.7** {below}".strip()
            if row.get("one-sided"):
                told += f"; {100 * row['one-sided']:.0f} % without an upper end"
            held = f"{row['truth']:.4g}" + (" (own mean)" if row["own mean"] else "")
            held += " (given the range)" if row.get("given") else ""
            lines.append(
                f"| {record['case']}, {record['replications']:,} | `{key}` | {held} | "
                f"{100 * row['coverage']:.1f} | {100 * row['low']:.1f} to {100 * row['high']:.1f} "
                f"| {100 * row['below']:.1f}, {100 * row['above']:.1f} | {told.lstrip('; ')} |"
            )
        for key, reason in record.get("left", {}).items():
            lines.append(
                f"| {record['case']}, {record['replications']:,} | `{key}` | | | | | not judged: "
                f"{reason} |"
            )
    return "\n".join(lines)

"""Made-up audits: everything a report can meet, without a model, an engine or torch.

The tables hang together (KL follows from means and scales, counts from columns), but information,
overlaps and round trips are only plausible. For tests of what is shown, never of what is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsekit import probes, readings
from collapsekit.findings import Evidence, Finding, Severity, fold
from collapsekit.number import Number
from collapsekit.results import Audit, summary_table

Floats = npt.NDArray[np.float64]
Kind = Literal[
    "healthy",
    "total",
    "partial",
    "local",
    "near-deterministic",
    "contradictory",
    "inconclusive",
]
KINDS: tuple[Kind, ...] = (
    "healthy",
    "total",
    "partial",
    "local",
    "near-deterministic",
    "contradictory",
    "inconclusive",
)
CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Boot",
)
NAN = math.nan
#: As the probes declare them; these audits know no probe.
BETTER = {
    headline.name: headline.better
    for source in (*probes.REGISTERED, *readings.REGISTERED)
    for headline in source.headlines
}
TITLES = {
    "rate": "Rate: KL per sample",
    "active_units": "Active units",
    "active_fraction": "Share of units active",
    "effective_rank": "Effective rank of the codes",
    "locally_collapsed_fraction": "Samples locally collapsed",
    "mutual_information": "Information about the input",
    "reidentification": "Samples that their code identifies",
    "dimensionwise_kl": "Mismatch of dimensions with the prior",
    "total_correlation": "Overlap between dimensions",
    "reconstruction_error": "Reconstruction error",
    "swap_gap": "Swap gap",
    "collision_fraction": "Samples that share a code with an unrelated one",
    "round_trip_r2": "Round trip, codes of the data",
    "round_trip_r2_prior": "Round trip, draws of the prior",
    "robust_round_trip_r2": "Round trip after rounding and noise",
    "lr_residual": "Latent reconstruction residual",
    "model_information": "KL(prior ‖ true posterior), by the decoder",
}


@dataclass(frozen=True)
class Posteriors:
    """Means, scales and labels that the rest follows from."""

    mean: Floats
    scale: Floats
    labels: npt.NDArray[np.int64]


def made_up(
    kind: Kind = "partial",
    *,
    n: int = 400,
    d: int = 32,
    seed: int = 0,
    pictures: Literal["grey", "colour", "vector", "none"] = "grey",
    labels: tuple[str, ...] = CLASSES,
    decoder: bool = True,
    latent_shape: tuple[int, ...] | None = None,
    map_rows: int = 400,
    side: int = 28,
) -> Audit:
    """An audit of `n` samples and `d` dimensions whose verdict is `kind`.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    n, d, seed : int
    pictures : {"grey", "colour", "vector", "none"}
        What the gallery holds.
    labels : tuple of str
        Class names; empty for data without labels.
    decoder : bool
        Without one, everything that decodes was skipped.
    latent_shape : tuple of int, optional
    map_rows, side : int
        Rows of the map; height and width of the pictures.
    """
    rng = np.random.default_rng(seed)
    q = _posteriors(kind, n, d, max(len(labels), 1), rng)
    samples, dimensions, tables = _tables(kind, q, labels, decoder, map_rows, rng)
    arrays = _arrays(pictures, tables, q, decoder, side) if pictures != "none" else {}
    if pictures == "none":
        tables.pop("gallery", None)
    numbers = _numbers(kind, samples, dimensions, decoder, n, d)
    findings = tuple(sorted(_findings(kind, numbers, n, d), key=lambda f: -f.severity))
    skipped = (
        {}
        if decoder
        else {
            "round_trip": "the adapter has no decode(z)",
            "decoder_usage": "the adapter has no decode(z)",
            "swap_gap": "no decoder, and no log_likelihood(x, z)",
            "gallery_reconstructions": "the adapter has no decode(z)",
        }
    )
    return Audit(
        verdict=fold(findings),
        findings=findings,
        summary=summary_table(numbers),
        samples=samples,
        dimensions=dimensions,
        tables=tables,
        arrays=arrays,
        skipped=skipped,
        settings={
            "dimension_state": {"epsilon": 0.01, "delta": 0.05},
            "active_units": {"threshold": 0.01, "expected_fraction": 0.8},
            "local_collapse": {"bar": 1.0, "epsilon": 0.01},
            "collisions": {"overlap": 0.5, "neighbours": 10},
            "decoder_usage": {"share": 0.01},
            "round_trip": {"noise": 0.1, "good": 0.5, "hidden": 0.25},
            "roles": {"reads_share": 0.01, "comes_back": 0.5},
        },
        provenance={
            "model": "MLP-VAE 784-256-128-32",
            "adapter": "TorchModule",
            "data": "Fashion-MNIST test",
            "data_fingerprint": "761e4140aa55",
            "n": n,
            "dimensions": d,
            "latent_shape": list(latent_shape) if latent_shape else [d],
            "rows_alike": 1.0,
            "seed": 0,
            "prior": "N(0, I)",
            "likelihood": "Gaussian(scale=0.63245553203367588)" if decoder else None,
            "parameterisation": "logvar",
            "beta": 0.4,
            "versions": {"collapsekit": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
            "notes": [],
            "passes": {"data: encode": 2 * n, "data: decode": 3 * n},
        },
        run={
            "started": "2026-11-22T10:31:07+00:00",
            "seconds": 49.2,
            "host": "x86_64, 2 cores",
            "timings": {"kl": 0.8, "mutual_information": 12.0},
        },
        titles=TITLES,
        better=BETTER,
    )


def without(audit: Audit, *names: str) -> Audit:
    """The audit without these headlines, columns, tables and arrays."""
    gone = set(names)
    return replace(
        audit,
        summary=audit.summary.drop(index=[k for k in audit.summary.index if k in gone]),
        samples=audit.samples.drop(columns=[k for k in audit.samples if k in gone]),
        dimensions=audit.dimensions.drop(columns=[k for k in audit.dimensions if k in gone]),
        tables={k: v for k, v in audit.tables.items() if k not in gone},
        arrays={k: v for k, v in audit.arrays.items() if k not in gone},
    )


def turning(audit: Audit, idle: int = 0, mixed: int = 0, unread: int = 0, most: int = 64) -> Audit:
    """The same as of full-covariance posteriors: directions beside axes, and no KL per dimension.

    Of its directions `mixed` are local, `idle` passive; the decoder does not read `unread` of the
    `most` that were measured.
    """
    d, n = len(audit.dimensions), audit.sample_count
    k = np.arange(d)
    state = np.where(k < d - idle - mixed, "active", np.where(k < d - idle, "mixed", "passive"))
    kl = np.where(state == "passive", 1e-18, 2.0 * 0.9**k)
    error = 0.1 * kl if n > 1 else np.full(d, NAN)
    below = np.select([state == "passive", state == "mixed"], [1.0, 0.4], 0.0)
    told = {"state": state, "local": state == "mixed", "share_below_epsilon": below}
    written = pd.DataFrame(
        {
            "direction": k,
            **told,
            **{"kl": kl, "kl_low": kl - error, "kl_high": kl + error},
            **{"mean_variance": kl / 3, "width": np.exp(-kl)},
        }
    )
    m = min(d, most)
    usage = np.where(np.arange(m) < m - unread, 0.5 * 0.9 ** np.arange(m), 0.0)
    read = pd.DataFrame({"direction": np.arange(m)})
    for name, scale in (("usage", 1.0), ("nats", 40.0)):
        read[name], read[f"{name}_se"] = scale * usage, 0.05 * scale * usage
        read[f"{name}_low"], read[f"{name}_high"] = 0.9 * scale * usage, 1.1 * scale * usage
    active = written[["direction"]].assign(variance=kl / 3, low=kl / 4, high=kl / 2)
    numbers = (
        Number("passive_directions", idle, idle, idle + mixed, "dimensions", n),
        Number("unread_directions", unread, unread, unread, "dimensions", 512),
    )
    tables = {"directions": written, "read_directions": read, "active_directions": active}
    return replace(
        audit,
        summary=pd.concat([audit.summary, summary_table(numbers)]),
        dimensions=audit.dimensions.drop(columns=[c for c in audit.dimensions if c[:2] == "kl"]),
        tables={**audit.tables, **tables},
    )


def bare() -> Audit:
    """Nothing could be measured at all."""
    return Audit(
        verdict=fold(()),
        findings=(),
        summary=summary_table(()),
        samples=pd.DataFrame(index=pd.RangeIndex(3)),
        dimensions=pd.DataFrame(index=pd.RangeIndex(2)),
        skipped={"kl": "the model returned codes only, no posterior"},
    )


def with_gaps(audit: Audit) -> Audit:
    """The same, with unevaluated cells in every nullable column and one column all empty."""
    samples = audit.samples.copy()
    for name in ("pointwise_information", "reidentification", "swap_gap", "kl_total"):
        if name in samples:
            column = samples[name].astype("Float64")
            column.iloc[::3] = pd.NA
            samples[name] = column
    samples["locally_collapsed"] = samples["locally_collapsed"].astype("boolean")
    samples.loc[samples.index[::4], "locally_collapsed"] = pd.NA
    samples["reconstruction_error"] = pd.array([pd.NA] * len(samples), dtype="Float64")
    dimensions = audit.dimensions.copy()
    for name in ("decoder_usage", "round_trip_r2", "robust_round_trip_r2", "kl_se"):
        if name in dimensions:
            column = dimensions[name].astype("Float64")
            column.iloc[1::2] = pd.NA
            dimensions[name] = column
    return replace(audit, samples=samples, dimensions=dimensions)


def hostile(audit: Audit, text: str) -> Audit:
    """The same, with `text` wherever an audit carries a stranger's words."""
    samples = audit.samples.copy()
    if len(samples):
        samples["label"] = [text if k % 2 else f"b{text}" for k in range(len(samples))]
    dimensions = audit.dimensions.copy()
    if "role" in dimensions:
        dimensions["role"] = [text, *dimensions["role"].iloc[1:]]
        dimensions["state"] = [text, *dimensions["state"].iloc[1:]]
    number = Number(text, 1.0, 0.5, 1.5, text, 10, text)
    finding = Finding(
        text, Severity.FAIL, text, text, text, (Evidence(number, 2.0, text),), "partial", (1,), (2,)
    )
    tables = dict(audit.tables)
    if "information_budget" in tables:
        tables["information_budget"] = pd.DataFrame(
            {"part": [text], "value": [1.0], "low": [0.5], "high": [1.5]}
        )
    return replace(
        audit,
        verdict=replace(audit.verdict, sentence=text),
        findings=(finding, *audit.findings),
        summary=summary_table([number, *(audit.number(str(k)) for k in audit.summary.index)]),
        samples=samples,
        dimensions=dimensions,
        tables=tables,
        skipped={**audit.skipped, text: text},
        settings={**audit.settings, text: {text: text}},
        provenance={
            **audit.provenance,
            "model": text,
            "adapter": text,
            "data": text,
            "data_fingerprint": text,
            "prior": text,
            "likelihood": text,
            "parameterisation": text,
            "versions": {text: text},
            "notes": [text],
            "command": text,
            text: text,
        },
        run={**audit.run, "started": text, "host": text, "timings": {text: 1.0}},
    )


# -- the made-up model -------------------------------------------------------------------------


def _posteriors(kind: Kind, n: int, d: int, classes: int, rng: np.random.Generator) -> Posteriors:
    labels = rng.integers(0, classes, n)
    if kind == "healthy":
        ratio = np.geomspace(60, 6, d)
    elif kind == "near-deterministic":
        ratio = np.full(d, 1e7)
    elif kind in ("total", "contradictory"):
        ratio = np.geomspace(4e-3, 1e-4, d)
    else:
        ratio = 10.0 ** (1.6 - 5.5 * np.sqrt(np.arange(d) / max(d - 1, 1)))
    variance = 1 / (1 + ratio)
    scale = np.sqrt(variance)[None, :] * np.exp(
        0.15 * rng.standard_normal((n, d)) * np.sqrt(1 - variance)
    )
    mean = rng.standard_normal((n, d)) * np.sqrt(1 - variance)
    mean *= (0.6 + 0.5 * rng.gamma(4, 0.25, n) + 0.04 * labels)[:, None]
    if kind == "near-deterministic":
        mean, scale = 6 * mean + 2, 6 * scale
    if kind == "local":
        asleep = rng.random(n) < np.linspace(0.05, 0.75, classes)[labels]
        mean[asleep] *= 0.02
        scale[asleep] = 1 - 0.01 * rng.random((int(asleep.sum()), d))
    order = rng.permutation(d)
    return Posteriors(mean[:, order], scale[:, order], labels)


def _kl(mean: Floats, scale: Floats) -> Floats:
    logvar = 2 * np.log(scale)
    return np.asarray(0.5 * (mean**2 + np.expm1(logvar) - logvar))


def _tables(
    kind: Kind,
    q: Posteriors,
    names: tuple[str, ...],
    decoder: bool,
    map_rows: int,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    n, d = q.mean.shape
    kl = _kl(q.mean, q.scale)
    total = kl.sum(1)
    lit = kl >= 0.01
    columns: dict[str, Any] = {}
    if names:
        columns["label"] = [names[k] for k in q.labels]
    columns |= {
        "kl_total": total,
        "active_dims": lit.sum(1),
        "collapsed_fraction": 1 - lit.mean(1),
        "locally_collapsed": total < 1,
        "pointwise_information": 0.85 * total,
        "reidentification": np.clip(total / 20, 1 / n, 1),
        "collides": rng.random(n) < 0.3,
    }
    if decoder:
        factor = 0.0 if kind == "total" else 12.0
        vital = 74.0 if kind == "contradictory" else 0.0
        columns["swap_gap"] = factor * total + vital + rng.standard_normal(n)
        columns["reconstruction_error"] = 10 + 30 / (1 + total) + rng.random(n)
        columns["model_information"] = 1.2 * total
    samples = pd.DataFrame(columns, index=pd.RangeIndex(n, name="sample"))

    variance = q.mean.var(0, ddof=1) if n > 1 else np.zeros(d)
    noise = (q.scale**2).mean(0)
    spread = variance + noise
    centre = q.mean.mean(0)
    aggregate = 0.5 * (centre**2 + spread - 1 - np.log(spread))
    share = lit.mean(0)
    state = np.where(share >= 0.95, "active", np.where(share <= 0.05, "passive", "mixed"))
    rate = kl.mean(0)
    dims: dict[str, Any] = {
        "kl": rate,
        "kl_se": kl.std(0) / math.sqrt(n),
        "kl_std": kl.std(0),
        "kl_q05": np.quantile(kl, 0.05, axis=0),
        "kl_median": np.median(kl, axis=0),
        "kl_q95": np.quantile(kl, 0.95, axis=0),
        "mean_variance": variance,
        "signal_fraction": variance / (variance + noise),
        "active": variance > 0.01,
        "state": state,
        "information": np.maximum(rate - aggregate, 0),
        "aggregate_kl": aggregate,
        "aggregate_mean": centre,
        "aggregate_variance": spread,
    }
    if decoder:
        usage = variance / max(variance.sum(), 1e-12) * np.exp(0.3 * rng.standard_normal(d))
        usage = np.where(variance < 0.05, usage * 0.05, usage)
        if kind == "contradictory":
            usage = np.geomspace(0.3, 0.01, d)
        trip = np.clip(1 - noise / np.maximum(spread, 1e-9), -0.2, 1) ** 0.5 - 0.01
        trip = np.nan_to_num(trip)
        robust = trip - 0.1 * rng.random(d)
        read = usage >= 0.01 * usage.max()
        written = variance > 0.01
        dims |= {
            "decoder_usage": usage,
            "round_trip_r2": trip,
            "round_trip_r2_prior": trip * 0.8,
            "round_trip_corr2": np.clip(trip, 0, 1),
            "robust_round_trip_r2": robust,
            "role": np.where(
                written & read,
                np.where(robust >= 0.5, "healthy", "entangled"),
                np.where(written, "ignored", np.where(read, "phantom", "dead")),
            ),
        }
    dimensions = pd.DataFrame(dims, index=pd.RangeIndex(d, name="dimension"))

    grid = np.geomspace(1e-4, 10, 61)
    count = (variance[None] > grid[:, None]).sum(1)
    nats = np.geomspace(0.01, 10, 13)
    below = (total[None] < nats[:, None]).mean(1)
    rows = rng.permutation(n)[: min(map_rows, n)]
    tables = {
        "active_units_curve": pd.DataFrame(
            {
                "threshold": grid,
                "count": count,
                "low": np.maximum(count - 1, 0),
                "high": np.minimum(count + 1, d),
            }
        ),
        "local_collapse_curve": pd.DataFrame(
            {
                "threshold": nats,
                "share": below,
                "low": np.maximum(below - 0.01, 0),
                "high": np.minimum(below + 0.01, 1),
            }
        ),
        "kl_map": pd.DataFrame(
            kl[rows], index=pd.Index(rows, name="sample"), columns=[str(j) for j in range(d)]
        ),
        "gallery": _gallery(total),
        "latent_view": _plane(q.mean, total),
    }
    if decoder:
        order = np.argsort(-rate, kind="stable")
        shown = np.concatenate([order[:6], order[-2:]]) if d > 8 else order
        tables["traversals"] = pd.DataFrame(
            {"position": range(len(shown)), "dimension": shown, "kl": rate[shown]}
        )
        tables["traversal_steps"] = pd.DataFrame(
            {"step": range(7), "shift": np.linspace(-2.5, 2.5, 7)}
        )
    if n > 1:
        pairs = rng.permutation(n)[: min(16, n - n % 2)].reshape(-1, 2)
        tables["collisions"] = pd.DataFrame(
            {
                "sample": pairs[:, 0],
                "partner": pairs[:, 1],
                "overlap": np.linspace(0.9, 0.5, len(pairs)),
                "distance": np.linspace(11.9, 8.2, len(pairs)),
            }
        )
    return samples, dimensions, tables


def _plane(mean: Floats, total: Floats) -> pd.DataFrame:
    spread = np.argsort(-mean.var(0), kind="stable")
    x, y = mean[:, spread[0]], mean[:, spread[-1 if len(spread) == 1 else 1]]
    kept = slice(0, 2000)
    return pd.DataFrame(
        {
            "sample": np.arange(len(total))[kept],
            "x": (x - x.mean())[kept],
            "y": (y - y.mean())[kept],
            "kl_total": total[kept],
            "share": 0.47,
        }
    )


def _gallery(total: Floats) -> pd.DataFrame:
    order = np.argsort(total, kind="stable")
    size = min(8, max(len(order) // 3, 1))
    middle = len(order) // 2
    chosen = {
        "weakest": order[:size],
        "typical": order[max(middle - size // 2, 0) :][:size],
        "strongest": order[::-1][:size],
    }
    rows = [(int(s), group, float(total[s])) for group, part in chosen.items() for s in part]
    frame = pd.DataFrame(rows, columns=["sample", "group", "kl_total"])
    frame.insert(0, "position", range(len(frame)))
    return frame


def _arrays(
    pictures: str,
    tables: dict[str, pd.DataFrame],
    q: Posteriors,
    decoder: bool,
    side: int,
) -> dict[str, np.ndarray]:
    def draw(numbers: Any) -> np.ndarray:
        return np.stack([_picture(q.mean[int(k)], int(q.labels[int(k)]), side) for k in numbers])

    def shaped(grey: np.ndarray) -> np.ndarray:
        if pictures == "colour":
            tint = np.stack([grey, grey**2, 1 - grey], axis=-3)
            return tint
        if pictures == "vector":
            return grey.reshape(*grey.shape[:-2], -1)[..., ::7]
        return grey

    inputs = draw(tables["gallery"]["sample"])
    arrays = {"gallery_inputs": shaped(inputs)}
    if decoder:
        empty = inputs.mean(0)
        arrays["gallery_reconstructions"] = shaped(0.75 * inputs + 0.25 * empty)
        arrays["gallery_empty"] = shaped(empty)
    if "traversals" in tables:
        shown = tables["traversals"]["dimension"]
        moved = np.zeros((len(shown), 7, q.mean.shape[1]))
        for row, dimension in enumerate(shown):
            moved[row, :, int(dimension)] = np.linspace(-2.5, 2.5, 7)
        flat = np.stack([_picture(code, 0, side) for code in moved.reshape(-1, q.mean.shape[1])])
        arrays["traversals"] = shaped(flat.reshape(len(shown), 7, side, side))
    if "collisions" in tables:
        frame = tables["collisions"]
        both = np.stack([draw(frame["sample"]), draw(frame["partner"])], axis=1)
        arrays["collision_inputs"] = shaped(both)
    return arrays


def _picture(code: Floats, label: int, side: int) -> Floats:
    """A ring whose radius, position and thickness are the code and the label."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1) - 0.5
    a, b, c = (float(np.tanh(code[k % len(code)])) for k in range(3))
    radius = np.hypot(x - 0.15 * a, (y - 0.15 * b) * (1 + 0.08 * label))
    ring = np.exp(-(((radius - 0.2 - 0.08 * c) / (0.03 + 0.01 * (label % 4))) ** 2))
    return np.asarray(np.clip(ring + 0.3 * (np.abs(x) < 0.02 * (label % 3)), 0, 1))


# -- headlines and findings --------------------------------------------------------------------


def _numbers(
    kind: Kind, samples: pd.DataFrame, dimensions: pd.DataFrame, decoder: bool, n: int, d: int
) -> list[Number]:
    rate = float(samples["kl_total"].mean())
    se = float(samples["kl_total"].std() / math.sqrt(n)) if n > 1 else NAN
    mismatch = float(dimensions["aggregate_kl"].sum())
    active = int(dimensions["active"].sum())
    local = float(samples["locally_collapsed"].mean())
    information = min(max(0.97 * (rate - mismatch), 0.0), math.log(n) if n > 1 else 0.0)
    high = max(rate - mismatch, information)
    if kind == "near-deterministic":
        high = rate
    wilson = 1.96 * math.sqrt(max(local * (1 - local), 0.25 / n) / n)
    normal = "95 % interval, normal"
    numbers = [
        Number("rate", rate, rate - 1.96 * se, rate + 1.96 * se, "nats", n, normal),
        Number(
            "active_units",
            active,
            max(active - 1, 0),
            min(active + 1, d),
            "dimensions",
            n,
            "95 % bootstrap",
        ),
        Number(
            "active_fraction",
            active / d,
            max(active - 1, 0) / d,
            min(active + 1, d) / d,
            "share",
            n,
            "95 % bootstrap",
        ),
        Number(
            "effective_rank",
            min(4.48, d),
            min(4.3, d),
            min(4.7, d),
            "dimensions",
            n,
            "95 % bootstrap",
        ),
        Number(
            "locally_collapsed_fraction",
            local,
            max(local - wilson, 0),
            min(local + wilson, 1),
            "share",
            n,
            "95 % Wilson",
        ),
        Number(
            "mutual_information",
            information,
            0.98 * information,
            high,
            "nats",
            n,
            "bracket of two bounds",
        ),
        Number("reidentification", 0.31, 0.30, 0.32, "share", n, normal),
        Number("dimensionwise_kl", mismatch, 0.95 * mismatch, 1.05 * mismatch, "nats", n, normal),
        Number(
            "total_correlation",
            max(rate - mismatch - information, 0),
            NAN,
            NAN,
            "nats",
            n,
            "follows from the bracket",
        ),
        Number("collision_fraction", 0.3, 0.291, 0.309, "share", n, "95 % Wilson"),
    ]
    if decoder:
        trip = dimensions["round_trip_r2"].clip(0, 1).mean()
        robust = dimensions["robust_round_trip_r2"].clip(0, 1).mean()
        swap = float(samples["swap_gap"].mean())
        error = float(samples["reconstruction_error"].mean())
        numbers += [
            Number("reconstruction_error", error, error - 0.1, error + 0.1, "nats", n, normal),
            Number("swap_gap", swap, swap - 0.8, swap + 0.8, "nats", n, normal),
            Number("round_trip_r2", trip, trip - 0.01, trip + 0.01, "1", n, normal),
            Number(
                "round_trip_r2_prior",
                0.8 * trip,
                0.8 * trip - 0.01,
                0.8 * trip + 0.01,
                "1",
                n,
                normal,
            ),
            Number("robust_round_trip_r2", robust, robust - 0.01, robust + 0.01, "1", n, normal),
            Number("lr_residual", d * (1 - trip), NAN, NAN, "1", n, ""),
            Number("model_information", 1.2 * rate, 1.1 * rate, 1.3 * rate, "nats", n, normal),
        ]
    return numbers


def _findings(kind: Kind, numbers: list[Number], n: int, d: int) -> list[Finding]:
    by = {number.name: number for number in numbers}
    ok, warn, fail = Severity.OK, Severity.WARN, Severity.FAIL

    def made(
        code: str,
        severity: Severity,
        message: str,
        name: str,
        threshold: float | None,
        relation: str,
        *,
        word: str | None = None,
        advice: str = "",
        dims: tuple[int, ...] = (),
    ) -> Finding:
        evidence = (Evidence(by[name], threshold, relation),) if name in by else ()
        return Finding(code, severity, code, message, advice, evidence, word, (), dims)

    rate, active = by["rate"], by["active_units"]
    local = by["locally_collapsed_fraction"]
    information = by["mutual_information"]
    enough = active.value >= 0.8 * d
    found = [
        made(
            "CK101",
            fail if rate.value < 0.1 else ok,
            f"The code departs from the prior by {rate.digits()} nats per sample.",
            "rate",
            0.1,
            ">",
            word="total" if kind == "total" else None,
            advice="Warm up the KL weight, or lower it." if rate.value < 0.1 else "",
        ),
        made(
            "CK201",
            ok if enough else fail,
            f"{active.digits()} of {d} dimensions are active.",
            "active_units",
            math.ceil(0.8 * d),
            ">=",
            word={"partial": "partial", "healthy": "healthy"}.get(kind),
            advice="" if enough else "Add the latent reconstruction loss; lower β.",
            dims=() if enough else tuple(range(min(d, 23))),
        ),
        made(
            "CK301",
            fail if kind in ("local", "total") else ok,
            f"{100 * local.value:.1f} % of the samples carry less than 1 nat.",
            "locally_collapsed_fraction",
            0.05,
            "<",
            word="local" if kind == "local" else None,
            advice="Warm up the KL, or add the latent reconstruction loss."
            if kind == "local"
            else "",
        ),
        made(
            "CK401",
            fail if information.high < 0.1 else ok,
            f"The code holds {information.digits()} nats about the input.",
            "mutual_information",
            0.1,
            ">",
        ),
        made(
            "CK501",
            warn,
            "30.0 % of the samples share a code with a clearly different input.",
            "collision_fraction",
            0.05,
            "<=",
            advice="Lower β: posteriors are wider than the gaps between inputs.",
        ),
    ]
    if "robust_round_trip_r2" in by:
        trip = by["robust_round_trip_r2"]
        good = trip.value >= 0.5
        found.append(
            made(
                "CK502",
                ok if good else fail,
                f"The round trip recovers {trip.digits()} of a code on average.",
                "robust_round_trip_r2",
                0.5,
                ">=",
                advice="" if good else "Follows from CK201.",
            )
        )
    if kind == "near-deterministic":
        found.append(
            made(
                "CK601",
                warn,
                "Posteriors are far narrower than the codes' spread, and far from the prior.",
                "dimensionwise_kl",
                1.0,
                "<",
                word="near-deterministic",
                advice="Raise β, or rescale the codes before anything is trained on them.",
            )
        )
    if kind == "contradictory":
        found.append(
            made(
                "CK602",
                fail,
                "KL says that the code is unused; another sample’s code costs 74 nats.",
                "swap_gap",
                0.1,
                "<",
                word="contradictory",
                advice="Check that the sampler and the KL use the same scale.",
            )
        )
    if kind == "inconclusive":
        doubt = Number("active_fraction", 0.81, 0.78, 0.83, "share", n, "95 % bootstrap")
        found.append(
            Finding(
                "CK202",
                Severity.INCONCLUSIVE,
                "The interval covers the threshold",
                "The share of active units is 78 to 83 %, on both sides of 80 %.",
                "Audit more samples.",
                (Evidence(doubt, 0.8, ">="),),
                "inconclusive",
            )
        )
    return found

"""Probes: one file a measurement. To add one, write its file and its test, and register it here."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from collapsekit.errors import InputError
from collapsekit.probe import Probe
from collapsekit.probes.active_units import (
    ActiveUnits,
    active_units,
    mean_variance,
    signal_fraction,
)
from collapsekit.probes.collisions import Collisions, collisions
from collapsekit.probes.decoder_folds import DecoderFolds, decoder_folds
from collapsekit.probes.decoder_jacobian import DecoderJacobian, decoder_jacobian
from collapsekit.probes.decoder_usage import DecoderUsage, decoder_usage
from collapsekit.probes.dimension_state import DimensionState, dimension_state
from collapsekit.probes.directions import Directions, directions
from collapsekit.probes.effective_rank import EffectiveRank, effective_rank
from collapsekit.probes.encoder_rank import EncoderRank, encoder_rank
from collapsekit.probes.gallery import Gallery
from collapsekit.probes.inference_gap import InferenceGap, inference_gap
from collapsekit.probes.information_budget import InformationBudget, information_budget
from collapsekit.probes.kl import KL, kl
from collapsekit.probes.kl_distribution import KLDistribution, kl_distribution
from collapsekit.probes.latent_view import LatentView
from collapsekit.probes.local_collapse import LocalCollapse, local_collapse
from collapsekit.probes.lower_lipschitz import LowerLipschitz, lower_lipschitz
from collapsekit.probes.mean_codes import MeanCodes, mean_codes
from collapsekit.probes.model_information import ModelInformation, model_information
from collapsekit.probes.mutual_information import (
    MutualInformation,
    mutual_information,
    pointwise_information,
    reidentification,
)
from collapsekit.probes.principal_variances import PrincipalVariances, linear_dimensions
from collapsekit.probes.read_directions import ReadDirections
from collapsekit.probes.reconstruction import Reconstruction, reconstruction
from collapsekit.probes.round_trip import RoundTrip, round_trip
from collapsekit.probes.sampled_scale import SampledScale, sampled_scale
from collapsekit.probes.shuffle_cost import ShuffleCost, shuffle_cost
from collapsekit.probes.swap_gap import SwapGap, swap_gap
from collapsekit.probes.traversals import Traversals

#: What an audit measures by default, in the order of its tables.
REGISTERED: tuple[Probe, ...] = (
    KL(),
    KLDistribution(),
    DimensionState(),
    Directions(),
    LocalCollapse(),
    ActiveUnits(),
    EffectiveRank(),
    MutualInformation(),
    InformationBudget(),
    Reconstruction(),
    ModelInformation(),
    InferenceGap(),
    PrincipalVariances(),
    SampledScale(),
    SwapGap(),
    MeanCodes(),
    ShuffleCost(),
    Collisions(),
    LowerLipschitz(),
    EncoderRank(),
    DecoderUsage(),
    ReadDirections(),
    DecoderJacobian(),
    RoundTrip(),
    RoundTrip(source="prior", limit=2048),
    DecoderFolds(source="population"),
    DecoderFolds(source="prior"),
    Gallery(),
    Traversals(),
    LatentView(),
)


def chosen(probes: Sequence[Probe | str]) -> tuple[Probe, ...]:
    """Probes by themselves, or by the names of registered ones.

    Raises
    ------
    InputError
        No probe has this name, or it is none.
    """
    known = {probe.name: probe for probe in REGISTERED}
    found: list[Probe] = []
    for asked in [probes] if isinstance(probes, str) else probes:
        probe = known.get(asked) if isinstance(asked, str) else asked
        if isinstance(probe, type) or not isinstance(probe, Probe):
            near = get_close_matches(str(asked), known)
            raise InputError(
                "that is no probe",
                got=repr(asked),
                expected=f"a probe, such as collapsekit.probes.KL(), or a name: {', '.join(known)}",
                remedy=f"did you mean {near[0]!r}?" if near else "",
            )
        found.append(probe)
    return tuple(found)


__all__ = [
    "KL",
    "REGISTERED",
    "ActiveUnits",
    "Collisions",
    "DecoderFolds",
    "DecoderJacobian",
    "DecoderUsage",
    "DimensionState",
    "Directions",
    "EffectiveRank",
    "EncoderRank",
    "Gallery",
    "InferenceGap",
    "InformationBudget",
    "KLDistribution",
    "LatentView",
    "LocalCollapse",
    "LowerLipschitz",
    "MeanCodes",
    "ModelInformation",
    "MutualInformation",
    "PrincipalVariances",
    "ReadDirections",
    "Reconstruction",
    "RoundTrip",
    "SampledScale",
    "ShuffleCost",
    "SwapGap",
    "Traversals",
    "active_units",
    "collisions",
    "decoder_folds",
    "decoder_jacobian",
    "decoder_usage",
    "dimension_state",
    "directions",
    "effective_rank",
    "encoder_rank",
    "inference_gap",
    "information_budget",
    "kl",
    "kl_distribution",
    "linear_dimensions",
    "local_collapse",
    "lower_lipschitz",
    "mean_codes",
    "mean_variance",
    "model_information",
    "mutual_information",
    "pointwise_information",
    "reconstruction",
    "reidentification",
    "round_trip",
    "sampled_scale",
    "shuffle_cost",
    "signal_fraction",
    "swap_gap",
]

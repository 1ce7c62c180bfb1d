"""CollapseMonitor: collapse curves while a model trains, in any framework's loop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collapsekit.adapter import session
from collapsekit.adapters import as_adapter
from collapsekit.door import Door
from collapsekit.errors import InputError
from collapsekit.monitors.lightning_hooks import callback_class, libraries_in_use
from collapsekit.monitors.measures import Round
from collapsekit.noise import hash_index
from collapsekit.readers import as_tensor
from collapsekit.samples import Inputs, Samples, as_samples, concatenate, take_rows
from collapsekit.streaming import Array, to_numpy

_BATCH = 256
_FAKE_SHARE = 0.25  # of dimensions, above which it is worth a warning
_IN_A_ROW = 3  # checks: units are fake for a while in many a healthy training


class CollapseMonitor:
    """Collapse curves of a model in training, and a word when something is wrong.

    In a plain loop, by the model::

        monitor = ck.monitors.CollapseMonitor(data=val, likelihood=("gaussian", beta**0.5))
        for epoch in range(epochs):
            ...                                   # train
            if monitor.due():
                print(monitor.check(vae, step))

    or by arrays of any framework, ``monitor.update(mean, scale)`` for each batch and then
    ``monitor.compute(step)``. Where Lightning is in use, the same object is a Lightning callback::

        trainer = L.Trainer(callbacks=[ck.monitors.CollapseMonitor(data=val)])

    that checks at epoch ends and logs ``collapse/...`` to whatever logger there is.

    Parameters
    ----------
    data : object, optional
        Validation data, anything that `collapsekit.audit` reads; `samples` of them are kept.
        Needed by `check` and under Lightning.
    model : callable, optional
        Under Lightning, from the LightningModule to what is looked at: a module, an adapter or an
        (encode, decode) pair. By default the LightningModule, by its own encode and decode.
    parameterisation, prior, likelihood : optional
        As `collapsekit.audit`'s. Without a likelihood the swap gap is a squared error, and fake
        units are those without information alone.
    samples : int
        Rows that information is measured on (and, in `check`, everything else): uniformly chosen,
        the same at every check.
    budget : float or None
        Time that checks may take as a share of the training's since the start, as `due` (and so
        the callback) sees to; the first is always due. None: a check at every epoch end.
    rate_bar : float
        Nats. Below it the model counts as collapsed for `onset`; 1 nat is where the audit calls a
        sample locally collapsed.
    active_bar : float
        Share of units active at 0.01, likewise.
    seed : int
        Of the choice of rows and the draws; global generators are not touched.

    Attributes
    ----------
    history : dict of list
        "step" and every value of `compute`, one entry a check. ``pandas.DataFrame(history)``.

    Raises
    ------
    InputError
        An argument out of its range.

    Notes
    -----
    Definitions are the audit's, on fewer rows: active units after Burda et al. 2016 (arXiv
    1509.00519), rate after Alemi et al. 2018 (arXiv 1711.00464), mutual information its lower bound
    on `samples` rows (ceiling ln `samples`), informative and fake units by information and shuffle
    cost above 0.1 nat. There are no intervals: for a judgement audit the trained model.

    Before convergence activity at 0.01 is unreliable: 0.63 to 0.88 of the units after 8 epochs of a
    run that ended at 0.22. Read it beside activity at 0.1 and the informative share.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> CollapseMonitor:
        # A Trainer exists only where Lightning has been imported; and it takes only its own kind.
        libraries = libraries_in_use() if cls is CollapseMonitor else ()
        made: CollapseMonitor = object.__new__(callback_class(cls, libraries) if libraries else cls)
        return made

    if not TYPE_CHECKING:  # else every attribute would pass for one

        def __getattr__(self, name: str) -> Any:
            if name in ("setup", "state_key") and libraries_in_use():
                raise InputError(
                    "this monitor was made before Lightning was imported, so it is no Callback",
                    got=f"CollapseMonitor without {name}",
                    expected="a monitor that is made where Lightning is in use",
                    remedy="import lightning before CollapseMonitor(...) is called",
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __init__(
        self,
        data: Any = None,
        *,
        model: Callable[[Any], Any] | None = None,
        parameterisation: str = "scale",
        prior: Any = None,
        likelihood: Any = None,
        samples: int = 1024,
        budget: float | None = 0.02,
        rate_bar: float = 1.0,
        active_bar: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if samples < 2 or (budget is not None and not 0.0 < budget <= 1.0):
            raise InputError(
                "this monitor cannot work",
                got=f"samples={samples}, budget={budget}",
                expected="2 samples or more, a budget in (0, 1] or None",
                remedy="the defaults are samples=1024, budget=0.02",
            )
        self.data, self.model = data, model
        self.parameterisation, self.prior, self.likelihood = parameterisation, prior, likelihood
        self.samples, self.budget, self.seed = samples, budget, seed
        self.rate_bar, self.active_bar = rate_bar, active_bar
        self.history: dict[str, list[float]] = {}
        self._kept: tuple[Array, Inputs] | None = None
        self._warned = False
        self._start_clock()
        self._round: Round | None = None
        self._open(_Pairs())  # a likelihood that cannot be read is told now, not at the first check

    # -- by arrays ---------------------------------------------------------------------------

    def update(self, mean: Any, scale: Any, x: Any = None) -> None:
        """Take in a batch of posteriors.

        Parameters
        ----------
        mean, scale : array [B, ...]
            Of any framework; `scale` is what `parameterisation` says.
        x : array [B, ...], optional
            The batch itself, for the swap gap.

        Raises
        ------
        ModelError
            They are no posteriors.
        """
        if self._round is None:
            self._round = self._open(_Pairs())
        encoded = self._round.door.encode((_array(mean), _array(scale)), "monitor")
        index = np.arange(encoded.posterior.rows) + self._round.count
        self._round.take(encoded, index, None if x is None else as_tensor(_array(x)))

    def compute(
        self, step: int | None = None, decode: Callable[[Any], Any] | None = None
    ) -> dict[str, float]:
        """Values of all batches since the last call; they are added to `history`.

        Parameters
        ----------
        step : int, optional
            Optimiser steps made so far; the number of the check otherwise.
        decode : callable, optional
            From codes to reconstructions, for the swap gap and the informative units. Codes are
            torch tensors where the means were, else NumPy arrays.

        Returns
        -------
        dict
            NaN where something could not be measured.

            ``active_units``, ``active_fraction``
                Count and share of units with Var(mu_j) > 0.01 prior variances.
            ``active_units_0.1``, ``active_fraction_0.1``
                The same above 0.1.
            ``rate``
                Mean KL from the prior, nats.
            ``mutual_information``
                Lower bound, nats, at most ln of the rows it rests on.
            ``swap_gap``
                What another sample's code costs: nats, squared error without a likelihood.
            ``informative_fraction``, ``fake_fraction``, ``fake_units``
                Shares and count of units (of 64 at most). Without a likelihood the first is NaN
                and the others are lower bounds.
            ``onset_step``
                `onset`, NaN where there is none.

        Raises
        ------
        InputError
            No batch since the last call.
        """
        if self._round is None:
            raise InputError(
                "there is nothing to compute",
                got="no batch since the last compute()",
                expected="one or more update(mean, scale)",
                remedy="update with the posteriors of the validation batches first",
            )
        finished, self._round = self._round, None
        finished.door.adapter.decode = decode
        with torch.no_grad():
            values = finished.values()
        self._enter(len(self.history.get("step", ())) if step is None else step, values)
        return values

    # -- by the model ------------------------------------------------------------------------

    def check(self, model: Any, step: int) -> dict[str, float]:
        """Look at a model as it is now.

        Parameters
        ----------
        model : object
            As `collapsekit.audit`'s. Its training flags, its gradients and torch's random numbers
            are left as they were.
        step : int
            Optimiser steps made so far.

        Returns
        -------
        dict
            As `compute`.

        Raises
        ------
        InputError
            There is no data, or this is no model.
        ModelError
            Its outputs are no posteriors.
        """
        with _undisturbed():
            index, x = self._rows()
            begin = time.perf_counter()
            adapter, _ = as_adapter(model)
            seen = self._open(adapter)
            with session(adapter):
                for first in range(0, len(index), _BATCH):
                    rows = np.arange(first, min(first + _BATCH, len(index)))
                    part = take_rows(x, rows)
                    seen.take(seen.door.encode(part, "monitor"), index[rows], part)
                values = seen.values()
            self._enter(step, values)
            self._last = time.perf_counter() - begin
            self._spent += self._last
        return values

    def due(self) -> bool:
        """Whether another check, at the cost of the last, stays within the budget."""
        if self.budget is None or not self._last:
            return True
        trained = time.perf_counter() - self._started - self._spent
        return self._spent + self._last <= self.budget * trained

    # -- what the curve says -----------------------------------------------------------------

    @property
    def onset(self) -> int | None:
        """First step of those, up to the last check, at which the model counts as collapsed.

        None where it does not at the last check: a model that recovers has no onset.
        """
        onset = None
        for step, rate, active in zip(
            *(self.history.get(k, ()) for k in ("step", "rate", "active_fraction")), strict=True
        ):
            below = rate < self.rate_bar or active < self.active_bar
            onset = (step if onset is None else onset) if below else None
        return None if onset is None else int(onset)

    @property
    def shows_fake_units(self) -> bool:
        """Whether at each of the last three checks over a quarter of the units were fake."""
        last = self.history.get("fake_fraction", [])[-_IN_A_ROW:]
        return len(last) == _IN_A_ROW and all(share > _FAKE_SHARE for share in last)

    def _enter(self, step: int, values: dict[str, float]) -> None:
        for name, value in {"step": step, **values}.items():
            self.history.setdefault(name, []).append(value)
        onset = self.onset
        values["onset_step"] = math.nan if onset is None else float(onset)
        self.history.setdefault("onset_step", []).append(values["onset_step"])
        if self.shows_fake_units and not self._warned:
            self._warned = True
            warnings.warn(
                f"{values['fake_units']:.0f} latent units are active without carrying information "
                f"that the decoder uses (fake units), as at the {_IN_A_ROW - 1} checks before; "
                "do not read active units alone. In the LR loss keep the gradient through z, and "
                "give it a weight of 3 to 10 beta (collapsekit explain CK604)",
                stacklevel=3,
            )

    # -- the rest ----------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_round": None}  # an open round belongs to this process

    def _open(self, adapter: Any) -> Round:
        door = Door(adapter, self.parameterisation, self.prior, self.likelihood)
        return Round(door, self.samples, self.seed)

    def _start_clock(self) -> None:
        self._started, self._spent, self._last = time.perf_counter(), 0.0, 0.0

    def _rows(self) -> tuple[Array, Inputs]:
        """Sample numbers and inputs that every check looks at; the data are read once."""
        if self._kept is None:
            if self.data is None:
                raise InputError(
                    "the monitor has no data to look at the model with",
                    got="data=None",
                    expected="validation data",
                    remedy="CollapseMonitor(data=val), or update(mean, scale) and compute(step)",
                )
            self._kept = _choose(as_samples(self.data), self.samples, self.seed)
        return self._kept


class _Pairs:
    """The adapter of posteriors that are handed in."""

    decode: Callable[[Any], Any] | None = None

    def encode(self, pair: Any) -> Any:
        return pair


def _array(values: Any) -> Any:
    """A torch tensor, or any other framework's array as NumPy's."""
    return values if isinstance(values, torch.Tensor) else np.asarray(values)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No gradients, and torch's random numbers as they were found: training goes on unchanged."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        yield


def _choose(samples: Samples, limit: int, seed: int) -> tuple[Array, Inputs]:
    """Numbers and inputs of the `limit` samples of smallest hash: the audit's population."""
    if samples.random_access and samples.size is not None:
        index = _smallest(np.arange(samples.size), limit, seed)[0]
        return index, samples.take(index)
    index, x = np.zeros(0, dtype=np.int64), None
    for part in samples.batches(_BATCH):
        index = np.concatenate([index, part.whole().index])
        index, rows = _smallest(index, limit, seed)
        x = take_rows(part.x if x is None else concatenate([x, part.x]), rows)
    if x is None:
        raise InputError(
            "the data hold no sample",
            got="N = 0",
            expected="at least two",
            remedy="hand in data with at least one sample; look for an empty file or filter",
        )
    return index, x


def _smallest(index: Array, limit: int, seed: int) -> tuple[Array, Array]:
    key = to_numpy(hash_index(seed, "population", torch.from_numpy(index)))
    rows = np.lexsort((index, key))[:limit]
    return index[rows], rows

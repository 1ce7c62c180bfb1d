"""What the compiled loop is asked: the structures of ``mixture.cpp``, field by field."""

from __future__ import annotations

import ctypes

from torch import Tensor

from collapsekit.kernels.screen import Screen


class _Fixed(ctypes.Structure):
    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("z", ctypes.c_void_p),
        ("dims", ctypes.c_int64),
        ("unit", ctypes.c_double),
    )


class _Screen(ctypes.Structure):
    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("z", ctypes.c_void_p),
        ("pairs", ctypes.c_int64),
        ("unit", ctypes.c_double),
        ("slack", ctypes.c_double),
    )


class Call(ctypes.Structure):
    """`count` rows by the columns first .. last of a group's panels."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("panels", "z", "own")),
        *((name, ctypes.c_int64) for name in ("count", "dims", "first", "last")),
        ("offset", ctypes.c_double),
        ("cut", ctypes.c_int64),
        ("fixed", _Fixed),
        ("screen", _Screen),
        *((name, ctypes.c_void_p) for name in ("exponent", "total")),
    )

    def take_fixed(self, weights: Tensor, factors: Tensor, unit: float) -> None:
        """Dimensions in fixed point, see `fixed.Fixed`: of the columns and of the rows."""
        self._fixed = weights, factors  # kept for as long as there are pointers into them
        self.fixed = _Fixed(weights.data_ptr(), factors.data_ptr(), factors.shape[1], unit)

    def take_screen(self, screen: Screen, steps: Tensor) -> None:
        """A screen and the steps of the rows."""
        self._screen = screen, steps
        self.screen = _Screen(
            screen.weights.data_ptr(), steps.data_ptr(), screen.pairs, screen.unit, screen.slack
        )

    def run(
        self,
        library: ctypes.CDLL,
        panels: Tensor,
        z: Tensor,
        own: Tensor,
        into: tuple[Tensor, Tensor],
    ) -> None:
        """Writes M and S of each row."""
        self.panels, self.z, self.own = panels.data_ptr(), z.data_ptr(), own.data_ptr()
        self.exponent, self.total = (tensor.data_ptr() for tensor in into)
        function = getattr(library, f"collapsekit_sums_{str(panels.dtype).removeprefix('torch.')}")
        # ctypes lets go of the interpreter's lock for as long as the call lasts.
        function(ctypes.byref(self))

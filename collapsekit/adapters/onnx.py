"""ONNX files: ``onnx:ENC.onnx,DEC.onnx``, or one file that returns the posterior (and more)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collapsekit.adapters.opening import existing, library
from collapsekit.adapters.reading import Reader
from collapsekit.adapters.torch_module import output_of
from collapsekit.errors import FileError, ModelError
from collapsekit.samples import Inputs, rows_of

#: Types of ONNX inputs that data are cast to; anything else is passed as it is.
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
_CODES = ("z", "latent", "latents", "code", "codes", "sample")
_RECONSTRUCTIONS = ("reconstruction", "recon", "recon_x", "x_hat", "x_recon", "output", "decoded")


class _Graph:
    """One inference session, called with arrays of any number of rows."""

    def __init__(self, file: Path | bytes, name: str) -> None:
        runtime = library("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = runtime.InferenceSession(
                file if isinstance(file, bytes) else str(file),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            raise FileError(
                f"{name} cannot be read as an ONNX model",
                got=" ".join(str(error).split())[:300],
                expected="a model with standard operators; large ones keep FILE.onnx.data beside",
                remedy="check that the file, and its .data file, are whole",
            ) from error
        self.name = name
        self.inputs = self.session.get_inputs()
        self.outputs = [node.name for node in self.session.get_outputs()]

    def feeds(self, x: Inputs) -> dict[str, np.ndarray]:
        if isinstance(x, Mapping):
            parts = {str(key): value for key, value in x.items()}
        else:
            values = (x,) if isinstance(x, Tensor) else x
            parts = {node.name: v for node, v in zip(self.inputs, values, strict=False)}
        names = {node.name for node in self.inputs}
        if not names <= parts.keys():
            raise ModelError(
                f"{self.name} takes other inputs than the data hold",
                got=f"data with {', '.join(sorted(parts)) or 'one array'}",
                expected=f"{', '.join(sorted(names))}",
                remedy="name the arrays of the data as the model's inputs",
            )
        fed = {}
        for node in self.inputs:
            array = np.ascontiguousarray(parts[node.name].detach().cpu().numpy())
            fed[node.name] = array.astype(_TYPES.get(node.type, array.dtype), copy=False)
        return fed

    def __call__(self, x: Inputs) -> dict[str, np.ndarray]:
        fed = self.feeds(x)
        rows = rows_of(x)
        fixed = {n.shape[0] for n in self.inputs if n.shape and isinstance(n.shape[0], int)}
        size = max(fixed, default=rows)
        try:
            parts = [self._block(fed, start, size, rows) for start in range(0, rows, size)]
        except Exception as error:
            shapes = ", ".join(f"{k} {v.shape}" for k, v in fed.items())
            wanted = ", ".join(f"{n.name} {n.shape}" for n in self.inputs)
            raise ModelError(
                f"{self.name} does not take this input",
                got=f"{shapes}; {' '.join(str(error).split())[:200]}",
                expected=wanted,
                remedy="give data in the model's shape; encoder first, decoder second: "
                "onnx:ENC.onnx,DEC.onnx",
            ) from error
        return {
            name: np.concatenate([part[i] for part in parts]) if parts[0][i].ndim else parts[0][i]
            for i, name in enumerate(self.outputs)
        }

    def _block(self, fed: dict[str, np.ndarray], start: int, size: int, rows: int) -> list[Any]:
        # A graph with a fixed batch gets whole batches: the last one is filled with its last row.
        stop = min(start + size, rows)
        take = np.minimum(np.arange(start, start + size), stop - 1)
        found = self.session.run(None, {k: v[take] for k, v in fed.items()})
        return [out[: stop - start] if out.ndim else out for out in found]


class Onnx:
    """An encoder, and a decoder, as inference sessions on the CPU.

    The posterior is found in the encoder's outputs by their names, or else by their places. Graphs
    hold no code that could be run; libraries of custom operators are not loaded.

    Parameters
    ----------
    encoder : path
    decoder : path, optional
        Without one, a single file is cut in two where it returns both the code, called z or latent,
        and the reconstruction.
    """

    def __init__(self, encoder: Path, decoder: Path | None = None) -> None:
        graph = _Graph(encoder, encoder.name)
        self.reader = Reader(
            {
                "outputs by name": graph,
                "outputs by place": lambda x: tuple(graph(x).values()),
            }
        )
        self._notes: tuple[str, ...] = ()
        back = None if decoder is None else _Graph(decoder, decoder.name)
        if back is None:
            back = self._cut(encoder, graph.outputs)
        if back is not None:
            self._back = back
            self.decode = self._decode
        names = [encoder.name, *([decoder.name] if decoder else [])]
        self.description = f"ONNX {', '.join(names)}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How the outputs are read, and what was cut."""
        return (*self._notes, *([self.reader.told] if self.reader.told else []))

    def encode(self, x: Inputs) -> Any:
        """The posterior of a batch."""
        return self.reader(x)

    def _decode(self, z: Tensor) -> Any:
        name = self._back.inputs[0].name
        answer = self._back({name: torch.as_tensor(z)})
        first = next(iter(answer.values()))
        return first if len(answer) == 1 else output_of(answer)

    def _cut(self, path: Path, outputs: list[str]) -> _Graph | None:
        code = next((name for name in outputs if name.lower() in _CODES), None)
        recon = next((name for name in outputs if name.lower() in _RECONSTRUCTIONS), None)
        if code is None or recon is None:
            self._notes = (f"{path.name} holds no decoder that could be called by itself",)
            return None
        onnx = library("onnx", "onnx")
        utils = library("onnx.utils", "onnx")
        try:
            model = onnx.load(str(path))
            part = utils.Extractor(model).extract_model([code], [recon])
            graph = _Graph(part.SerializeToString(), f"{path.name} from {code} to {recon}")
        except Exception as error:
            self._notes = (
                f"{path.name} could not be cut between {code} and {recon}, so there is no decoder: "
                f"{' '.join(str(error).split())[:200]}",
            )
            return None
        self._notes = (f"the decoder is the part of {path.name} from {code} to {recon}",)
        return graph


def open_spec(rest: str, *, device: Any = None, trust_code: bool = False) -> tuple[Onnx, None]:
    """Open ``ENC.onnx,DEC.onnx``, or one file.

    Raises
    ------
    FileError
        A file is missing or broken.
    InputError
        onnxruntime is not installed.
    """
    first, _, second = rest.partition(",")
    encoder = existing(first, "ONNX file")
    return Onnx(encoder, existing(second, "ONNX file") if second else None), None

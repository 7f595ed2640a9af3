"""Networks that listen, folded without data and with it, on recordings: how much of their outputs is lost, and what the
verdict says of it.

    python benchmarks/sounds.py --speech FOLDER [--front MELSPECTROGRAM.onnx] [--models NAME ...] [--macs 0.8 0.6]
                                [--effort balanced]

FOLDER holds some dozens of .wav files of speech (of `espeak-ng -w`, for example). Half of what is cut from them is
calibration data, the other half tests. `--front` is the network that makes spectrograms for oww_embedding
(openwakeword brings it along); without it that one is left out.
"""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nets import options, parsed
from numpy.typing import NDArray

import onnxfold
from onnxfold.runtime.session import Session

Floats = NDArray[np.float32]
RATE = 16_000
NETWORKS = ("kws_dscnn_mlperftiny", "oww_embedding", "dnsmos_sig_bak_ovr")


def recordings(folder: Path) -> list[Floats]:
    """All .wav files of 16-bit samples, at 16 kHz, from -1 to 1."""
    found = []
    for path in sorted(folder.glob("*.wav")):
        with wave.open(str(path)) as file:
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels).mean(axis=1)
        places = np.arange(int(len(samples) * RATE / rate)) * rate / RATE
        found.append((np.interp(places, np.arange(len(samples)), samples) / 32768).astype(np.float32))
    return found


def cepstra(waves: list[Floats]) -> Floats:
    """[N, 1, 49, 10] as MLPerf Tiny makes them: 30 ms every 20, 40 bands from 20 to 4,000 Hz."""
    mel = 1127 * np.log1p(np.fft.rfftfreq(512, 1 / RATE) / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(4000 / 700), 42)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    bands = np.maximum(0, np.minimum(rising, (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])))
    cosines = np.sqrt(2 / 40) * np.cos(np.pi / 40 * (np.arange(40)[:, None] + 0.5) * np.arange(10))
    made = []
    for second in cut(waves, RATE):
        frames = np.stack([second[at : at + 480] * np.hanning(480) for at in range(0, RATE - 479, 320)])
        made.append(np.log(np.abs(np.fft.rfft(frames / max(1e-3, np.abs(second).max()), 512)) @ bands + 1e-6) @ cosines)
    return np.asarray(made, np.float32)[:, None]


def spectrograms(front: Path) -> Callable[[list[Floats]], Floats]:
    """[N, 76, 32, 1] as openwakeword makes them."""

    def made(waves: list[Floats]) -> Floats:
        session = Session(front)
        source, found = session.inputs[0].name, list[Floats]()
        for one in waves:
            frames = session.run({source: (one * 32767)[None]})[0].reshape(-1, 32) / 10 + 2
            found += [frames[at : at + 76, :, None] for at in range(0, len(frames) - 75, 60)]
        return np.asarray(found, np.float32)

    return made


def samples(waves: list[Floats]) -> Floats:
    """[N, 144160]: sounds of nine seconds, repeated until they are as long."""
    return np.stack([np.resize(one, 144_160) for one in waves])


def cut(waves: list[Floats], length: int) -> Iterator[Floats]:
    for one in waves:
        yield from (one[at : at + length] for at in range(0, len(one) - length + 1, 9000))


def lost(path: Path, version: Path, test: Floats) -> tuple[float, float]:
    """(what is lost of the outputs, relative to how far they move; how often the top class is the same)."""
    old, new = (outputs(one, test) for one in (path, version))
    moved = np.linalg.norm(old - old.mean(axis=0))
    return float(np.linalg.norm(new - old) / moved), float((new.argmax(axis=1) == old.argmax(axis=1)).mean())


def outputs(path: Path, test: Floats) -> NDArray[Any]:
    session = Session(path)
    source = session.inputs[0].name
    return np.concatenate([session.run({source: one[None]})[0].reshape(1, -1) for one in test])


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--front", type=Path)
    parser.add_argument("--models", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--macs", nargs="+", type=float, default=[0.8, 0.6])
    parser.add_argument("--effort", default="balanced")
    asked = parsed(parser)
    makers = {NETWORKS[0]: cepstra, NETWORKS[2]: samples}
    if asked.front is not None:
        makers[NETWORKS[1]] = spectrograms(asked.front)
    waves = recordings(asked.speech)
    print(f"{'':24}{'MACs':>6}{'data':>6}{'lost':>8}{'claim':>8}{'same class':>12}  judged on")
    for name in (name for name in asked.models if name in makers):
        path, x = asked.data / "models" / f"{name}.onnx", makers[name](waves)
        x = x[np.random.default_rng(0).permutation(len(x))[:512]]
        calibration, test = x[: len(x) // 2], x[len(x) // 2 :]
        for share in asked.macs:
            for data in (None, {Session(path).inputs[0].name: calibration}):
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder, "out.onnx")
                    made = onnxfold.fold(path, out, target_macs=share, effort=asked.effort, calibration=data)
                    error, same = lost(path, out, test)
                quality = made.report.check.quality
                claim, judged = ("-", "-") if quality is None else (f"{100 * quality.error:.0f} %", quality.inputs)
                used = "-" if data is None else len(calibration)
                print(
                    f"{name:24}{share:6}{used:>6}{100 * error:6.0f} %{claim:>8}{100 * same:10.0f} %  {judged}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

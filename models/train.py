"""Train the small digit models in this folder and export them to ONNX.

    python models/train.py            # all of them
    python models/train.py vgg mlp    # some of them (resnet, vgg, mobilenet, mlp)

See README.md beside this file for what has to be installed. Everything is seeded and runs on
one CPU thread, each network from a seed of its own, so a network does not depend on which
others are trained in the same run. Accuracy on the held-out images is only reported: nothing
is chosen by it during training.
"""

from __future__ import annotations

import argparse
import io
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
import torch
from digits import DATA, Images, Labels, accuracy, load_test, load_train, make_split
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped,unused-ignore]
from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
OPSET = 17
IR_VERSION = 8
CLASSES = 10


# --- networks ---------------------------------------------------------------------------------


def conv_bn(cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(cout)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip: identity, or a 1x1 projection where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(cin, cout, 3, stride)
        self.conv2, self.bn2 = conv_bn(cout, cout)
        self.relu = nn.ReLU()
        self.skip: nn.Module | None = None
        if stride != 1 or cin != cout:
            self.skip = nn.Sequential(*conv_bn(cin, cout, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(y + (x if self.skip is None else self.skip(x)))
        return out


def resnet() -> nn.Module:
    return nn.Sequential(
        *conv_bn(1, 32),
        nn.ReLU(),
        BasicBlock(32, 32, 1),
        BasicBlock(32, 32, 1),
        BasicBlock(32, 64, 2),
        BasicBlock(64, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    cin = 1
    for widths in ((32, 32), (64, 64)):
        for cout in widths:
            layers += [*conv_bn(cin, cout), nn.ReLU()]
            cin = cout
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(64 * 2 * 2, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, CLASSES)]
    return nn.Sequential(*layers, *head)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise (3x3), project (1x1, linear); a skip where the shape is kept."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = cin * expand
        self.expand = nn.Sequential(*conv_bn(cin, mid, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(*conv_bn(mid, mid, 3, stride, groups=mid), nn.ReLU6())
        self.project = nn.Sequential(*conv_bn(mid, cout, 1))
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def mobilenet() -> nn.Module:
    return nn.Sequential(
        *conv_bn(1, 24),
        nn.ReLU6(),
        InvertedResidual(24, 24, 1, 4),
        InvertedResidual(24, 40, 2, 4),
        InvertedResidual(40, 40, 1, 4),
        InvertedResidual(40, 64, 1, 4),
        InvertedResidual(64, 64, 1, 4),
        *conv_bn(64, 128, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, CLASSES),
    )


# --- training ---------------------------------------------------------------------------------


def shifts(images: Images) -> Images:
    """[9, N, 1, 8, 8]: the images and their shifts by one pixel, background (-1) moving in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    return np.stack([padded[:, :, dy : dy + 8, dx : dx + 8] for dy in range(3) for dx in range(3)])


def train(build: Callable[[], nn.Module], seed: int, epochs: int, lr: float, batch: int = 64) -> nn.Module:
    torch.manual_seed(seed)
    model = build()
    images, labels = load_train()
    variants, targets = torch.from_numpy(shifts(images)), torch.from_numpy(labels)
    # Weight decay on matrices and kernels only, not on biases and BatchNormalization.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    count = len(targets)
    steps = epochs * (count // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train()
    for _ in range(epochs):
        # Half of the images as they are (variant 4), half shifted to one of the 9 places.
        shift = torch.where(torch.rand(count) < 0.5, 4, torch.randint(9, (count,)))
        order = torch.randperm(count)
        for start in range(0, count - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = loss_of(model(variants[shift[chosen], chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def train_mlp(seed: int) -> MLPClassifier:
    images, labels = load_train()
    flat = shifts(images)[[4, 1, 3, 5, 7]].reshape(-1, 64)  # unshifted, up, left, right, down
    mlp = MLPClassifier((128, 64), alpha=1e-2, batch_size=128, max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 epochs are enough
        return mlp.fit(flat, np.tile(labels, 5))


# --- export -----------------------------------------------------------------------------------


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop doc strings and metadata: they can hold source paths of the machine that exported."""
    graph = model.graph
    del model.metadata_props[:]
    model.doc_string = ""
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    return model


def export(model: nn.Module, keep_bn: bool = False) -> onnx.ModelProto:
    mode = torch.onnx.TrainingMode
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        buffer,  # type: ignore[arg-type,unused-ignore]
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        opset_version=OPSET,
        training=mode.PRESERVE if keep_bn else mode.EVAL,
        do_constant_folding=not keep_bn,
        dynamo=False,
    )
    return onnx.load_from_string(buffer.getvalue())


def export_mlp(mlp: MLPClassifier) -> onnx.ModelProto:
    nodes, weights = [], []
    value = "image"
    last = len(mlp.coefs_) - 1
    for i, (coef, bias) in enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True)):
        weights.append(numpy_helper.from_array(coef.astype(np.float32), f"fc{i}.weight"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"fc{i}.bias"))
        out = "logits" if i == last else f"fc{i}"
        nodes.append(helper.make_node("Gemm", [value, f"fc{i}.weight", f"fc{i}.bias"], [out], name=f"gemm{i}"))
        value = out
        if i != last:
            value = f"relu{i}"
            nodes.append(helper.make_node("Relu", [out], [value], name=value))
    graph = helper.make_graph(
        nodes,
        "digits_mlp",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def check_batch_norm(model: onnx.ModelProto, count: int) -> None:
    """`count` BatchNormalization nodes, in inference form, with stored running statistics."""
    stored = {tensor.name for tensor in model.graph.initializer}
    # torch stores equal tensors once, the others are Identity of it. Here that is the shift of the
    # projection's BatchNormalization and of the one it is added to: their gradients are the same.
    stored.update(out for n in model.graph.node if n.op_type == "Identity" and n.input[0] in stored for out in n.output)
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    if len(nodes) != count:
        raise RuntimeError(f"{len(nodes)} BatchNormalization nodes, expected {count}")
    for node in nodes:
        training = [a.i for a in node.attribute if a.name == "training_mode"]
        if len(node.output) != 1 or any(training) or not stored.issuperset(node.input[1:]):
            raise RuntimeError(f"{node.name} is not in inference form")


def save(name: str, model: onnx.ModelProto, expected: Images, labels: Labels) -> None:
    """Strip, validate against the trained model's own logits on the test images, and write."""
    model = strip(model)
    onnx.checker.check_model(model, full_check=True)
    if model.ir_version > 10:
        raise RuntimeError(f"{name}: ir_version {model.ir_version}")
    data = model.SerializeToString()
    bare = onnx.ModelProto.FromString(data)
    del bare.graph.initializer[:]  # weights can hold any bytes
    text = bare.SerializeToString()
    if b".py" in text or str(HERE).encode() in text:
        raise RuntimeError(f"{name}: a source path is left in the model")
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    images, _ = load_test(flat=name == "digits_mlp")
    for batch in (len(images), 1):
        (logits,) = session.run(["logits"], {"image": images[:batch]})
        np.testing.assert_allclose(logits, expected[:batch], rtol=1e-3, atol=1e-3)
    reference = 100.0 * np.mean(expected.argmax(axis=1) == labels)
    measured = accuracy(data)
    if measured != reference:
        raise RuntimeError(f"{name}: {measured} % in onnxruntime, {reference} % before the export")
    (HERE / f"{name}.onnx").write_bytes(data)
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    ops = dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
    print(f"{name}.onnx: {len(data) / 1000:.0f} KB, {parameters} parameters, {measured:.1f} %, {ops}", flush=True)


def make_torch(name: str, build: Callable[[], nn.Module], seed: int, epochs: int, lr: float) -> None:
    start = time.perf_counter()
    model = train(build, seed, epochs, lr)
    print(f"{name}: trained in {time.perf_counter() - start:.0f} s", flush=True)
    images, labels = load_test()
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    if name == "resnet":
        kept = export(model, keep_bn=True)
        check_batch_norm(kept, sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()))
        save("digits_resnet_bn", kept, expected, labels)
        name = "resnet_fused"
    fused = export(model)
    check_batch_norm(fused, 0)
    save(f"digits_{name}", fused, expected, labels)


def make_mlp() -> None:
    mlp = train_mlp(seed=0)
    images, labels = load_test(flat=True)
    # predict_proba is the softmax of the logits: the layers again, without it.
    value = images.astype(np.float64)
    for i, (coef, bias) in enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True)):
        value = (value if i == 0 else np.maximum(value, 0.0)) @ coef + bias
    if not np.array_equal(value.argmax(axis=1), mlp.predict(images)):
        raise RuntimeError("the layers do not give the classifier's own predictions")
    save("digits_mlp", export_mlp(mlp), value.astype(np.float32), labels)


MAKERS: dict[str, Callable[[], None]] = {
    "resnet": lambda: make_torch("resnet", resnet, seed=0, epochs=40, lr=4e-3),
    "vgg": lambda: make_torch("vgg", vgg, seed=0, epochs=40, lr=4e-3),
    "mobilenet": lambda: make_torch("mobilenet", mobilenet, seed=0, epochs=60, lr=6e-3),
    "mlp": make_mlp,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the digit models.")
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(MAKERS)}; all by default")
    names = parser.parse_args().networks or list(MAKERS)
    np.savez_compressed(DATA, **make_split())
    for name in names:
        if name not in MAKERS:
            parser.error(f"no network {name!r}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in names:
        MAKERS[name]()


if __name__ == "__main__":
    main()

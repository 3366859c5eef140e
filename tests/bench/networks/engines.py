"""The outside engines of the benchmark `networks`: PyTorch, ONNX Runtime and OpenVINO, driven line by line.

Written for torch 2.15, onnxruntime 1.32, openvino 2026.4 and safetensors 0.8 (and onnx, onnxscript for the export).
Reads `load NAME` and `run ENGINE` from standard input; NAME.safetensors, in the folder that is the only argument, holds weights, `input` and `output`.
Answers `engines A B …` to the first, and to the second `MILLISECONDS LARGEST_DIFFERENCE`.
"""

import os
import sys
import time
from pathlib import Path

THREADS = int(os.environ.get("ICTUS_BENCH_THREADS", "2"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn

torch.set_num_threads(THREADS)
# Idle workers of one engine may spin for a fifth of a second; the next one must not pay for it.
QUIET_SECONDS = 0.3


class Level(nn.Module):
    def __init__(self, conv, norm, c_in, c_out, stride):
        super().__init__()
        self.c1 = conv(c_in, c_out, 3, stride, 1)
        self.n1 = norm(c_out, affine=True)
        self.c2 = conv(c_out, c_out, 3, 1, 1)
        self.n2 = norm(c_out, affine=True)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.n1(self.c1(x)), 0.01)
        return nn.functional.leaky_relu(self.n2(self.c2(x)), 0.01)


class UNet(nn.Module):
    def __init__(self, dims, features, classes):
        super().__init__()
        conv, norm, up = (
            (nn.Conv3d, nn.InstanceNorm3d, nn.ConvTranspose3d)
            if dims == 3
            else (nn.Conv2d, nn.InstanceNorm2d, nn.ConvTranspose2d)
        )
        inputs = [1, *features]
        self.enc = nn.ModuleList(
            Level(conv, norm, inputs[i], f, 1 if i == 0 else 2) for i, f in enumerate(features)
        )
        self.up = nn.ModuleList(up(b, a, 2, 2) for a, b in zip(features, features[1:]))
        self.dec = nn.ModuleList(Level(conv, norm, 2 * f, f, 1) for f in features[:-1])
        self.head = conv(features[0], classes, 1)

    def forward(self, x):
        skips = []
        for level in self.enc:
            x = level(x)
            skips.append(x)
        for i in reversed(range(len(self.dec))):
            x = self.dec[i](torch.cat([self.up[i](x), skips[i]], 1))
        return self.head(x)


def renamed(name, levels):
    """nnU-Net's name of a parameter -> the one it has here."""
    part, kind, number, *rest = name.split(".")
    level = int(number)
    if part == "encoder":
        at, (_, _, conv, layer, what) = f"enc.{level}", rest
    elif kind == "transpconvs":
        return f"up.{levels - 2 - level}.{rest[0]}"
    elif kind == "seg_layers":
        return f"head.{rest[0]}"
    else:
        at, (_, conv, layer, what) = f"dec.{levels - 2 - level}", rest
    return f"{at}.{'c' if layer == 'conv' else 'n'}{int(conv) + 1}.{what}"


def load(folder, name):
    """Builds every engine that is installed: name → a function from nothing to the output."""
    tensors = {k: torch.from_numpy(v.copy()) for k, v in load_file(folder / f"{name}.safetensors").items()}
    x, expected = tensors.pop("input"), tensors.pop("output").numpy()
    features = []
    while (first := f"encoder.stages.{len(features)}.0.convs.0.conv.weight") in tensors:
        features.append(tensors[first].shape[0])
    tensors = {renamed(key, len(features)): tensor for key, tensor in tensors.items()}
    network = UNet(x.dim() - 2, features, expected.shape[1])
    network.load_state_dict(tensors)
    network.eval()
    engines = {}

    def with_torch():
        with torch.inference_mode():
            return network(x).numpy()

    engines["torch"] = with_torch
    last = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    other = UNet(x.dim() - 2, features, expected.shape[1])
    other.load_state_dict(tensors)
    other = other.eval().to(memory_format=last)
    x_last = x.to(memory_format=last)

    def with_torch_channels_last():
        with torch.inference_mode():
            return other(x_last).contiguous().numpy()

    engines["torch_channels_last"] = with_torch_channels_last

    trained = UNet(x.dim() - 2, features, expected.shape[1])
    trained.load_state_dict(tensors)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, weight_decay=1e-2)

    def with_torch_training():
        optimizer.zero_grad()
        y = trained(x)
        y.square().mean().backward()
        optimizer.step()
        return expected

    engines["torch_training"] = with_torch_training
    try:
        import onnxruntime

        path = folder / f"{name}.onnx"
        torch.onnx.export(network, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=18)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        engines["onnxruntime"] = lambda: session.run(None, {"x": x.numpy()})[0]
    except Exception as error:  # an engine that is not installed is left out, and said
        print(f"no onnxruntime: {error}", file=sys.stderr)
    try:
        import openvino

        model = openvino.convert_model(network, example_input=x, input=list(x.shape))
        for kind in ("f32", "bf16"):
            compiled = openvino.Core().compile_model(
                model,
                "CPU",
                {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"},
            )
            request = compiled.create_infer_request()
            engines["openvino" if kind == "f32" else "openvino_bf16"] = (
                lambda request=request: np.array(request.infer([x.numpy()])[0])
            )
    except Exception as error:
        print(f"no openvino: {error}", file=sys.stderr)
    return engines, expected


def main():
    folder = Path(sys.argv[1])
    engines, expected = {}, None
    for line in sys.stdin:
        command, argument = line.split()
        if command == "load":
            engines, expected = load(folder, argument)
            print("engines", *engines, flush=True)
            continue
        started = time.perf_counter()
        output = engines[argument]()
        elapsed = time.perf_counter() - started
        print(elapsed * 1e3, float(np.abs(output - expected).max()), flush=True)
        time.sleep(QUIET_SECONDS)


main()

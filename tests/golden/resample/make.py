"""nnU-Net's own resampling of random arrays -> cases.json and arrays.safetensors.

Made with nnunetv2 2.8.1, scikit-image 0.26.0, scipy 1.17.1, numpy 2.4.6:
    python make.py
Each case calls `resample_data_or_seg_to_shape`, as a plan does for images (order 3) and logits (order 1).
"""
import json
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from safetensors.numpy import save_file

HERE = Path(__file__).parent
EVEN, COARSE, SAGITTAL = (1.0, 1.0, 1.0), (5.0, 0.5, 0.5), (0.5, 0.5, 4.0)
#       name              shape         new shape     spacing   new       order order_z force
CASES = [
    ("cubic_finer", (7, 11, 9), (10, 19, 13), EVEN, EVEN, 3, 0, None),
    ("cubic_coarser", (12, 17, 14), (7, 9, 13), EVEN, EVEN, 3, 0, None),
    ("cubic_short", (2, 3, 5), (5, 4, 9), EVEN, EVEN, 3, 0, None),
    ("cubic_apart", (6, 15, 13), (11, 21, 9), COARSE, EVEN, 3, 0, None),
    ("cubic_apart_new", (6, 15, 13), (4, 21, 9), EVEN, COARSE, 3, 0, None),
    ("cubic_apart_last", (9, 11, 6), (13, 7, 15), SAGITTAL, EVEN, 3, 0, None),
    ("cubic_apart_linear", (6, 12, 10), (13, 17, 8), COARSE, EVEN, 3, 1, None),
    ("cubic_not_apart", (6, 12, 10), (9, 17, 8), COARSE, EVEN, 3, 0, False),
    ("cubic_forced", (6, 12, 10), (9, 17, 8), (2.0, 1.0, 1.0), EVEN, 3, 0, True),
    ("linear", (7, 11, 9), (10, 6, 13), EVEN, EVEN, 1, 0, None),
    ("linear_apart", (7, 11, 9), (16, 19, 5), EVEN, COARSE, 1, 0, None),
    ("nearest", (7, 11, 9), (10, 6, 13), EVEN, EVEN, 0, 0, None),
]


def main():
    rng = np.random.default_rng(20261123)
    arrays, cases = {}, []
    for name, shape, new, spacing, new_spacing, order, order_z, force in CASES:
        data = rng.normal(0, 1, (1, *shape)).astype(np.float32)
        out = resample_data_or_seg_to_shape(
            data, new, spacing, new_spacing, is_seg=False, order=order, order_z=order_z, force_separate_z=force
        )
        arrays[f"{name}.in"], arrays[f"{name}.out"] = data[0], np.ascontiguousarray(out[0]).astype(np.float32)
        cases.append(dict(name=name, shape=shape, new=new, spacing=spacing, new_spacing=new_spacing,
                          order=order, order_z=order_z, force_separate_z=force))
    save_file(arrays, str(HERE / "arrays.safetensors"))
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The paper's values of parameters, each with its source, against which the presets are held."""

from typing import Any

WARMUP = {"learning_rate": 0.01, "until_training_error": 80.0}  # section 4.2: n = 18
RECIPE = {  # sections 3.4 and 4.2 agree on these
    "optimizer": {
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0001,
        "momentum_form": "caffe",  # the README of the authors' released models
    },
    "label_smoothing": 0.0,  # no such thing in the paper
    "precision": "fp32",  # the GPUs of 2015
    "options": {},  # sections 3.3 and 4.2: the networks' own defaults are the paper's
}
PAPER: dict[str, dict[str, Any]] = {
    "cifar10": {
        "data": {
            "source": "cifar10",  # section 4.2
            "size": None,  # section 4.2: 32x32 images as they are
            "limit_shorter_side": None,
            "holdout": {"images": 5000, "train_on": True},  # section 4.2: 45k/5k split; "trained on the training set"
            # section 4.2: inputs of 32x32 with the per-pixel mean subtracted
            "mean": {"kind": "per_pixel", "shorter_side": None, "crop": 32, "divide_by_std": False},
        },
        # section 4.2: 4 pixels padded on each side, 32x32 crop or its flip
        "augmentation": {"scale": None, "pad": 4, "crop": 32, "mirror": True, "color_noise": 0.0},
        "training": {
            **RECIPE,
            "batch_size": 128,  # section 4.2
            "bn_images": 64,  # section 4.2: two GPUs
            "iterations": 64000,  # section 4.2
            "schedule": {"kind": "steps", "milestones": [32000, 48000], "factor": 0.1},  # section 4.2
            "warmup": None,  # section 4.2: n = 18 alone
            "curve_view": None,  # section 4.2: the single view of the original image
        },
        # Table 6: five runs of ResNet-110
        "runs": {f"resnet110-s{seed}": {"training": {"warmup": WARMUP}} for seed in range(5)},
        # section 4.2: tested on the test set, one view
        "evaluation": {"split": "test", "precision": "fp32", "protocols": {"single_view": {}}},
    },
    "imagenet": {
        "data": {
            "source": "ilsvrc2012",  # section 4.1
            "size": None,
            "limit_shorter_side": None,
            "holdout": {"images": 0, "train_on": True},  # section 4.1: trained on the 1.28 million images
            # section 3.4: 224x224 crops with the per-pixel mean subtracted
            "mean": {"kind": "per_pixel", "crop": 224, "divide_by_std": False},
        },
        # section 3.4; the colour noise's deviation is AlexNet's
        "augmentation": {"scale": [256, 480], "pad": 0, "crop": 224, "mirror": True, "color_noise": 0.1},
        "training": {
            **RECIPE,
            "batch_size": 256,  # section 3.4
            "bn_images": 32,  # the README of the authors' released models: 8 GPUs
            "iterations": 600000,  # section 3.4
            "schedule": {"kind": "plateau", "factor": 0.1},  # section 3.4
            "warmup": None,  # section 3.4
            "curve_view": {"shorter_side": 256, "crop": 224},  # Figure 4: centre crops
        },
        "evaluation": {
            "split": "val",  # section 4.1
            "precision": "fp32",
            "protocols": {
                "center_crop": {"shorter_side": 256, "crop": 224},  # the README's 1-crop
                "ten_crop": {"shorter_side": 256, "crop": 224},  # the README's 10-crop; section 3.4
                "multi_scale": {"shorter_sides": [224, 256, 384, 480, 640]},  # section 3.4
            },
        },
    },
}
"""The paper's values, as far as it or the authors' README gives them."""

RUNS = {  # Table 6 and Figure 6; Tables 2 to 5
    "cifar10": {
        **{f"plain{depth}": 1 for depth in (20, 32, 44, 56, 110)},
        **{f"resnet{depth}": 1 for depth in (20, 32, 44, 56, 1202)},
        "resnet110": 5,
    },
    "imagenet": {
        **dict.fromkeys(("plain18", "plain34", "resnet18a", "resnet34a", "resnet34b", "resnet34c"), 1),
        **dict.fromkeys(("resnet50", "resnet101", "vgg16", "googlenet", "prelu_net", "bn_inception"), 1),
        "resnet152": 2,
    },
}

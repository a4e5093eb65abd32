"""What each framework calls the tensors of a layer; the paths before them are the spec's, the same everywhere."""

from __future__ import annotations

from portdet_convert.rules import Naming, Rule, Skip

STATE = ("learning_rate", "momentum", "global_step", "epoch_num", "step_num", "current_step", "scale_sense")
"""Entries of a MindSpore training checkpoint that are no tensors of the model."""

WRAPPERS = ("module.", "model.", "state_dict.", "state_dict.module.", "model.module.", "ema.", "net.")
OPTIMISER = tuple(Skip(pattern, "optimiser state") for pattern in ("optimizer.{rest}", "optim.{rest}"))
PADDLE_OPTIMISER = tuple(
    Skip(pattern, "optimiser state")
    for pattern in (
        "{path:.+[.][wb]_[0-9]+}_{slot:[^.]+}_{n:[0-9]+}",  # no dot: a long name takes 4 us, not 0.75 ms
        "{path}_{slot:velocity|moment[12]?|beta[12]_pow_acc}_{n:[0-9]+}",  # of a parameter with a name of its own
        "master_weights.{rest}",
        "LR_Scheduler.{rest}",
    )
)
"""Paddle's optimisers name their accumulators after the parameter's internal name: `conv2d_0.w_0_velocity_0`."""

CLASSIFIER = Skip("{layer:fc|out}.{leaf:weight|bias}", "output of a classifier")
"""What a backbone that was trained on ImageNet may end with."""

TORCH = Naming(
    "torch",
    (Rule("{path}", "{path}"),),
    (
        Skip("{path}.num_batches_tracked", "counter of batch norm, not a weight"),
        Skip("state.{i:[0-9]+}.{rest}", "optimiser state"),
        *OPTIMISER,
    ),
    WRAPPERS,
)

PADDLE = Naming(
    "paddle",
    (
        Rule("{path}._mean", "{path}.running_mean"),
        Rule("{path}._variance", "{path}.running_var"),
        Rule("{path}", "{path}"),
    ),
    (*OPTIMISER, *PADDLE_OPTIMISER),
    WRAPPERS,
)

MINDSPORE = Naming(
    "mindspore",
    (
        Rule("{path}.norm.gamma", "{path}.norm.weight"),
        Rule("{path}.norm.beta", "{path}.norm.bias"),
        Rule("{path}.moving_mean", "{path}.running_mean"),
        Rule("{path}.moving_variance", "{path}.running_var"),
        Rule("{path}", "{path}"),
    ),
    (
        Skip("moments.{rest}", "optimiser state"),
        *(Skip(name, "state of the training") for name in STATE),
    ),
)

STATE_FILE = Naming(
    "portdet state",
    (Rule("weights/{path}", "{path}"),),
    (Skip("momentum/{rest}", "optimiser state"), Skip("ema/{rest}", "average of the weights, not the weights")),
)
"""`last.safetensors` of a run: the whole state of the training."""

FRAMEWORKS = (TORCH, PADDLE, MINDSPORE, STATE_FILE)
WRITTEN = {"ckpt": MINDSPORE, "pdparams": PADDLE, "pth": TORCH, "safetensors": TORCH, "npz": TORCH}
"""Names in the files that portdet writes: those that the generated model of the framework has."""

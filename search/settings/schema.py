"""Every setting of a search: frozen dataclasses whose field metadata is the one source of validation, help and docs.

`search.settings.parsing` turns a composed configuration into these classes; `search.settings.reference` prints them
as `--help` and as docs/configuration.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from explain.evidence.registry import PRIORS as PRIOR_NAMES
from lightning_modules.training.optimizers import OPTIMIZERS
from search.settings.field import setting
from search.settings.retrain import RetrainSettings

__all__ = [
    "EXECUTORS",
    "OPTIMIZER_NAMES",
    "PARTS",
    "PRIOR_NAMES",
    "DataSettings",
    "DecisionSettings",
    "ExecutorSettings",
    "FosteringSettings",
    "ModelSettings",
    "RetrainSettings",
    "SearchSettings",
    "Settings",
    "SpaceSettings",
    "ThesisSettings",
    "TrackingSettings",
    "TrainerSettings",
]

OPTIMIZER_NAMES = tuple(OPTIMIZERS)

EXECUTORS = {
    "inline": "one trial at a time, in this process",
    "local": "worker processes that live as long as the search",
    "ray": "workers on the machines of a Ray cluster (docs/scaling.md)",
}
"""Name of a file of `search/executor/` -> what it does. Named here because settings import nothing that runs trials."""

_AUTO_BLOCK = "auto"  # `attention_branch.AUTO`, which settings cannot import: it brings torch
_FIRST_OPTIMIZER = "adam"  # best where images are few: docs/results.md, Levers of training

MEMBERS = 3  # by benchmarks.judges: docs/results.md, Judges and committees

PARTS = ("lenet", "random", "transfer", "finetune", "rates")


@dataclass(frozen=True)
class DataSettings:
    """Which images, how they are checked, resized, split and augmented."""

    source: str = setting("simulated", "where the images come from", choices=("simulated", "folder", "manifest"))
    path: Path | None = setting(
        None,
        "folder (root/<class>/*, root/<YYYY-MM>/<class>/*, or with train, val and test in place of months) or manifest "
        "file (CSV, TSV or Parquet with columns path, label and, where known, month, group, split, mask)",
        identity=False,
    )
    images: int | None = setting(None, "how many images to simulate (data=simulated only)", low=400, high=1_000_000)
    size: tuple[int, int] | str = setting(
        "auto",
        "height and width the images are resized to; auto goes by the training images' own size, the network's and "
        "data.epoch_megapixels (docs/inputs.md, Which size)",
        unit="px", low=8, high=2048, words=("auto",),
    )  # fmt: skip
    epoch_megapixels: float = setting(
        16.0,
        "most that an epoch may train at a size that data.size=auto chooses above 96: training images x height x "
        "width; on a GPU 32 times as much",
        unit="megapixels", above=0, high=1e9, identity=False,
    )  # fmt: skip
    fit: str = setting(
        "auto",
        "how another aspect ratio is brought to that size; auto pads where the training images' is more than 1.5 times "
        "off, else stretches",
        choices=("auto", "stretch", "pad", "crop"),
    )
    tile: tuple[int, int] | None = setting(
        None,
        "side, or height and width, of the tiles that images are cut into, in pixels of the original image; null "
        "resizes whole images; see docs/tiles.md",
        unit="px",
        low=8,
        high=100_000,
        square=True,
    )
    tile_overlap: float = setting(
        0.25, "smallest share of its side that a tile has in common with the next one", low=0, high=0.9
    )
    tile_defect: float = setting(
        0.005,
        "share of a tile that the mask must cover for the tile to have the image's class in training; one with less, "
        "but some, is left out (data.normal and masks)",
        above=0,
        high=1,
    )
    normal: str | None = setting(
        None,
        "class of images without a defect: of an image's tiles, the one least like it decides; null takes the mean of "
        "the tiles' log-probabilities (data.tile)",
    )
    on_bad: str = setting(
        "refuse", "what happens to unreadable, contradictory or too few images", choices=("refuse", "set_aside")
    )
    min_per_class: int = setting(5, "fewest images a class may have", low=2, high=1_000_000)
    max_pixels: int = setting(50_000_000, "largest image that is decoded", unit="px", low=64)
    groups: str = setting(
        "none", "whether a folder level below the class names the coil, plate or lot", choices=("none", "folder")
    )
    outside: str = setting(
        "refuse",
        "images and masks that lie outside the folder, or the manifest's own folder: absolute paths, .. and links that "
        "lead out of it",
        choices=("refuse", "allow"),
        identity=False,
    )
    test: str = setting(
        "auto",
        "the test set: the newest month(s), a random part, or (rest) all that max_train_per_class leaves; auto takes "
        "the newest month where months are known, else random",
        choices=("auto", "newest_month", "random", "rest"),
    )
    test_months: int = setting(1, "how many of the newest months are the test set", low=1, high=120)
    test_fraction: float = setting(0.2, "share of the images in a random test set", above=0.0, high=0.9)
    validation: str = setting(
        "random", "the validation set: a random part, or the newest training month", choices=("random", "newest_month")
    )
    validation_fraction: float = setting(0.2, "share of the other images in a random validation set", above=0, high=0.9)
    folds: int = setting(1, "stratified folds a trial is averaged over; 1 is a single validation set", low=1, high=20)
    repeats: int = setting(1, "how often the folds are drawn anew", low=1, high=20)
    max_train_per_class: int | None = setting(None, "cap on training images a class", low=1)
    views: int = setting(4, "augmented views an image has beside the plain one", low=0, high=64)
    flip: bool = setting(True, "whether views may be mirrored left to right")
    orientation: str = setting(
        "upright",
        "how an image may lie: upright, or any where the part or the camera has no direction (views are also turned by "
        "90, 180 or 270 degrees, and mirrored top to bottom where they may be mirrored at all)",
        choices=("upright", "any"),
    )
    shift: float = setting(0.05, "largest shift of a view, as a share of the side", low=0, high=0.5)
    gain: float = setting(0.1, "largest relative change of a view's brightness scale", low=0, high=0.9)
    offset: float = setting(0.05, "largest change of a view's brightness, as a share of white", low=0, high=0.9)

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width, once they are known.

        Raises:
            RuntimeError: they are still to be chosen.
        """
        if isinstance(self.size, str):
            raise RuntimeError(f"data.size={self.size} is not resolved yet")
        return self.size

    @property
    def resolution(self) -> tuple[tuple[int, int], str]:
        """Size and fit, once they are known.

        Raises:
            RuntimeError: one of them is still to be chosen.
        """
        if self.fit == "auto":
            raise RuntimeError(f"data.fit={self.fit} is not resolved yet")
        return self.pixels, self.fit


@dataclass(frozen=True)
class ModelSettings:
    """The network."""

    name: str | tuple[str, ...] = setting(
        "efficientnet_lite0",
        "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, vgg16, resnet50, lenet5, lenet5_relu, or "
        "timm:ARCHITECTURE; of a list, as in [efficientnet_lite0,efficientnet_lite1], the search chooses one "
        "(docs/networks.md)",
    )
    weights: str = setting(
        "imagenet", "imagenet, none (random), or the path of a state dict (safetensors or PyTorch)", path=True
    )
    width: float = setting(
        1.0, "share of the channels and hidden units of vgg16 and lenet5, which have no ImageNet weights then",
        above=0, high=1,
    )  # fmt: skip

    head: str = setting(
        "plain",
        "what answers: plain is the network's own head; attention_branch also puts an attention branch behind a block, "
        "which is trained to name the class, shows where the network looks, and has later blocks look there "
        "(docs/networks.md)",
        choices=("plain", "attention_branch"),
    )
    attention_block: str | None = setting(
        None,
        "block behind which the attention branch stands; null is the last before the last block whose output has at "
        "least 4 x 4 positions; freeze depths reach up to it and not beyond (model.head=attention_branch)",
    )

    @property
    def attention(self) -> str | None:
        """What `backbones.build` takes as `attention`."""
        return None if self.head == "plain" else self.attention_block or _AUTO_BLOCK

    @property
    def names(self) -> tuple[str, ...]:
        """The networks to choose from; the first is that of trial 0."""
        return (self.name,) if isinstance(self.name, str) else self.name

    @property
    def several(self) -> bool:
        """Whether the search chooses among networks."""
        return len(self.names) > 1

    @property
    def architecture(self) -> str:
        """The name by which `backbones.build` knows the first network, width included."""
        return self.architecture_of(self.names[0])

    def architecture_of(self, name: str) -> str:
        """The same of any of `names`."""
        return name if self.width == 1 else f"{name}@{self.width:g}"


@dataclass(frozen=True)
class SpaceSettings:
    """What is searched. Trial 0 is always the default configuration named here."""

    optimizers: tuple[str, ...] = setting(
        ("sgd", "momentum", "nag", "adam", "rmsprop"), "optimizers to choose from", choices=OPTIMIZER_NAMES
    )
    lr_factor: tuple[float, float] = setting(
        (0.1, 10.0), "range of the factor on the optimizer's reference learning rate (log scale)", above=0, high=1000
    )
    freeze_depth: tuple[int, int] | None = setting(
        None, "range of the freeze depth; null is 0..L, and 0 alone for random weights", unit="blocks", low=0
    )
    default_optimizer: str | None = setting(
        None,
        "optimizer of trial 0; null is adam, or the first of space.optimizers where that is not among them",
        choices=OPTIMIZER_NAMES,
    )
    default_lr_factor: float = setting(1.0, "learning-rate factor of trial 0", above=0, high=1000)
    default_freeze_depth: int | None = setting(None, "freeze depth of trial 0; null is half of L", unit="blocks", low=0)
    default_depths: int = setting(
        3,
        "at how many freeze depths, spread over the range, the first trials take that optimizer and rate, all in full; "
        "1 is trial 0 alone (with several networks or weights of fostering it is always alone)",
        low=1, high=9,
    )  # fmt: skip
    fostering: tuple[float, ...] | None = setting(
        None,
        "weights of CAM fostering to choose from, as in [0,1,10,100]; trial 0 takes trainer.fostering.beta, which must "
        "be one of them, and the next trials are the same with each of the others; null searches none",
        low=0,
        high=1e6,
    )

    @property
    def first_optimizer(self) -> str:
        """Optimizer of trial 0."""
        if self.default_optimizer is not None:
            return self.default_optimizer
        return _FIRST_OPTIMIZER if _FIRST_OPTIMIZER in self.optimizers else self.optimizers[0]


@dataclass(frozen=True)
class SearchSettings:
    """How the study is run."""

    study: str | None = setting(
        None, "name of the study; null derives one from data, model and settings", identity=False
    )
    storage: str | None = setting(
        None,
        "where the study is kept: null is a journal file under tracking.root; else a database, as in "
        "postgresql+psycopg2://USER@HOST/DATABASE (docs/scaling.md)",
        identity=False,
    )
    trials: int = setting(8, "finished trials to reach at most", low=1, high=100_000, identity=False)
    metric: str = setting("macro_f1", "validation score that is shown", choices=("macro_f1", "weighted_f1", "accuracy"))
    judge: str = setting(
        "score",
        "what compares trials, at the rungs and at the end, always after the last epoch that they have: score is "
        "search.metric, and of equals the lower validation log loss is better; loss is that log loss",
        choices=("score", "loss"),
    )
    stop: str = setting(
        "auto",
        "when no more trials are asked for: auto as soon as there are as many complete ones as search.members and the "
        "best leaves so few validation images wrong that none could be shown to be better (4, by a sign test at 5 %); "
        "never before search.trials",
        choices=("auto", "never"), identity=False,
    )  # fmt: skip
    members: int = setting(
        MEMBERS,
        "how many networks answer together: the best complete trials of the winner's network, each refitted, their "
        "logits averaged; 1 delivers the best alone",
        low=1, high=20, identity=False,
    )  # fmt: skip
    objective: str = setting(
        "accuracy",
        "what trials are compared by: that score alone, or the score and the spread of the maps at "
        "trainer.fostering.block (Pareto front; no pruning, so search.pruner=none)",
        choices=("accuracy", "accuracy+interpretability"),
    )
    sampler: str = setting("tpe", "Optuna sampler", choices=("tpe", "random"))
    startup_trials: int = setting(4, "trials drawn at random before the sampler learns", low=1, high=10_000)
    prior: str = setting(
        "uniform",
        "where early trials draw their freeze depth from: uniform leaves it to the sampler; static is a table from "
        "other data sets; deepest and monotone look at nothing; advisor goes by the number of images and their "
        "likeness to the source; probe is short for linear_probe; evidence adds up what faithful_localisation, "
        "cam_stability and train_validation_disagreement say; see docs/evidence.md",
        choices=PRIOR_NAMES,
    )
    prior_trials: int = setting(
        10, "finished trials after which the prior has no more weight", unit="trials", low=1, high=10_000
    )
    prior_floor: float = setting(
        0.2,
        "share of the prior that is spread evenly over all freeze depths: none is ruled out",
        low=0.2,
        high=1,
    )
    evidence: bool = setting(
        False,
        "whether evidence by block is collected before the first trial also where the prior does not need it (uniform, "
        "static, deepest, monotone): it describes the network and does not choose the depth (docs/results.md)",
    )
    pruner: str = setting(
        "halving",
        "rule for poor trials: halving lets a trial wait at epochs 1, 2, 4, 8, ... (with few images the first are left "
        "out) until it is among the best of those that came as far (the first two times, of those at most one freeze "
        "depth away), and stops it when it cannot be, but for trial 0, which runs in full; maps does the same by the "
        "log loss and by what the trials' maps show (docs/evidence.md); median stops what is worse than the median of "
        "the others, at any epoch",
        choices=("halving", "maps", "median", "none"),
    )
    pruner_startup_trials: int = setting(4, "finished trials before the median rule stops any", low=1, high=10_000)
    pruner_warmup_epochs: int = setting(
        2, "epochs every trial is given before the median rule may stop it", unit="epochs", low=1
    )
    halving_factor: int = setting(
        3, "one in this many trials goes on at each rung (halving and maps rules)", low=2, high=16
    )
    trust: str = setting(
        "none",
        "whether evidence by block decides how long a trial is trusted (halving rule): evidence multiplies the share "
        "that goes on from a rung by a number in [1/2, 2] for each freeze depth; see docs/evidence.md",
        choices=("none", "evidence"),
    )
    budget: str | None = setting(
        None,
        "after how much no more trials are asked for, over all calls of the study: a number with its unit, as in 600s, "
        "90min or 8h of wall time, 40epochs (of training everything) or 100trials (attempts, failed ones too); those "
        "that run or wait are brought to an end (docs/interruptions.md)",
        identity=False,
    )
    trial_seconds: float | None = setting(
        None,
        "longest time of a trial; one over it is stopped with what it has (outcome overtime), and fails if it has no "
        "epoch",
        unit="s",
        above=0,
        high=1e9,
        identity=False,
    )
    max_attempts: int = setting(3, "how often a trial lost to a crash is tried in all", low=1, high=10, identity=False)
    fresh: bool = setting(False, "forget an earlier study of the same name and start anew", identity=False)
    refit: bool = setting(True, "whether the winner is trained on training and validation images together")
    refit_epochs: int | None = setting(
        3,
        "epochs that each of the winner's networks goes on from its trial for, on training and validation images; null "
        "trains it anew in full, as is done with several folds and where every block is frozen",
        unit="epochs",
        low=1,
        high=10_000,
    )
    refit_rate: float = setting(
        1.0, "times its trial's learning rate, from which that of these epochs falls to 0", above=0, high=10
    )


@dataclass(frozen=True)
class FosteringSettings:
    """CAM fostering: the entropy of the true class's map as a term of the loss (docs/fostering.md)."""

    beta: float = setting(0.0, "weight of the map's entropy in the loss, per nat; 0 looks at no map", low=0, high=1e6)
    block: str | None = setting(
        None, "block whose map is fostered; null is the last; freeze depths may reach up to it and not beyond"
    )


@dataclass(frozen=True)
class TrainerSettings:
    """How one trial is trained."""

    epochs: int = setting(10, "epochs of a full trial", unit="epochs", low=1, high=10_000)
    batch_size: int = setting(32, "images in a training step", unit="images", low=2, high=4096)
    schedule: str = setting(
        "cosine",
        "learning rate over the epochs: falling to 0 as a cosine, or constant",
        choices=("cosine", "constant"),
    )
    weight_decay: float = setting(1e-4, "L2 weight decay", low=0, high=1)
    class_weights: str = setting(
        "none", "whether the loss weighs classes inversely to their number of images", choices=("none", "balanced")
    )
    label_smoothing: float = setting(
        0.0, "share of a training label that is spread evenly over the classes", low=0, high=0.9
    )
    warmup: bool = setting(True, "whether the head is first fitted to the output of the pre-trained blocks")
    batch_norm_images: int = setting(
        256,
        "training images from which thawed batch-norm is re-estimated before each evaluation",
        unit="images",
        low=16,
    )
    precision: str = setting(
        "auto",
        "arithmetic of training: bfloat16 is autocast; auto is bfloat16 on a GPU that has it and float32 elsewhere "
        "(on a CPU bfloat16 took twice as long)",
        choices=("auto", "float32", "bfloat16"),
    )
    accelerator: str = setting("auto", "where to train", choices=("auto", "cpu", "gpu"), identity=False)
    activations: str = setting(
        "float16", "precision to which the frozen blocks' output is rounded", choices=("float16", "bfloat16", "float32")
    )
    cache_gigabytes: float = setting(
        4.0, "largest size of the activation cache; 0 computes everything", unit="GB", low=0, identity=False
    )
    fostering: FosteringSettings = field(default_factory=FosteringSettings)


@dataclass(frozen=True)
class DecisionSettings:
    """What is decided by the winner's probabilities (docs/decisions.md)."""

    costs: Path | None = setting(
        None,
        "table of what decisions cost, a row a pair in the columns true, decided (a class, or by hand) and cost; the "
        "winner keeps it, and the report says what deciding by it costs; null keeps none",
    )


@dataclass(frozen=True)
class TrackingSettings:
    """Where everything is kept."""

    root: Path = setting(Path("mlruns"), "folder of the MLflow store, the studies and the caches", identity=False)
    uri: str | None = setting(
        None,
        "MLflow server for runs and models, as in http://HOST:PORT, or environment, which leaves it to "
        "MLFLOW_TRACKING_URI; null keeps them in tracking.root, where the other commands look for them "
        "(docs/scaling.md)",
        identity=False,
    )
    experiment: str = setting("thawline", "MLflow experiment", identity=False)
    model_name: str = setting("thawline", "name under which winners are registered", identity=False)
    restore: bool = setting(
        False,
        "whether the experiment and the runs of a search or a month are brought back where they were deleted in MLflow",
        identity=False,
    )
    report: bool = setting(
        True,
        "whether a report is written at the end; with folds it trains the winning configuration once more",
        identity=False,
    )


@dataclass(frozen=True)
class ExecutorSettings:
    """Where trials run."""

    name: str = setting(
        "local",
        "; ".join(f"{name}: {meaning}" for name, meaning in EXECUTORS.items()),
        choices=tuple(EXECUTORS),
        identity=False,
    )
    workers: int | None = setting(
        None,
        "trials that run at the same time; null is one a GPU, or one a core up to 4 (1 with executor=inline; with "
        "executor=ray as many as the cluster has room for when the search starts)",
        unit="processes",
        low=1,
        high=256,
        identity=False,
    )
    threads: int | None = setting(
        None,
        "threads of a trial; null shares out the cores that this process may use among the workers (executor=ray: 1, "
        "or a GPU's share of the cluster's cores)",
        unit="threads",
        low=1,
        high=1024,
    )
    silence_seconds: float = setting(
        300.0,
        "a worker that trains and gives no sign of life for so long (it is stopped, or its machine thrashes) is ended, "
        "which costs an attempt (not with executor=inline); it gives one five times in this time, also while an "
        "epoch lasts",
        unit="s",
        low=5,
        high=1e9,
        identity=False,
    )
    address: str = setting(
        "auto",
        "the Ray cluster (executor=ray): auto is the one that RAY_ADDRESS names or that runs on this machine; local "
        "starts one on this machine for the time of the search; or ray://HOST:PORT or HOST:PORT",
        identity=False,
    )
    gpus: float | None = setting(
        None,
        "share of a GPU that a worker takes (executor=ray): 0.5 lets two workers share one; null is 1 where the "
        "cluster has GPUs, else 0",
        low=0,
        high=1,
        identity=False,
    )
    node_cache: Path | None = setting(
        None,
        "folder of a node's own for activations (executor=ray); null is one for each user in the node's folder for "
        "temporary files",
        identity=False,
    )
    checkpoint_seconds: float | None = setting(
        60.0,
        "a trial is kept on disk at the end of an epoch once so long has gone by since it was last, and goes on from "
        "there after a crash; 0 keeps every epoch, null only trials that wait at a rung",
        unit="s",
        low=0,
        high=1e9,
        identity=False,
    )


@dataclass(frozen=True)
class ThesisSettings:
    """Which of the thesis's experiments is run, with protocol=thesis."""

    part: str | None = setting(
        None,
        "lenet: LeNet-5, tanh with SGD and ReLU with Adam; random: the network from random weights with every "
        "optimizer; transfer: the pre-trained one at every freeze depth with every optimizer; finetune: all of the "
        "best of those, at a very low rate; rates: every optimizer at the same learning rates; null: none",
        choices=PARTS,
        identity=False,
    )
    rates: tuple[float, ...] = setting(
        (1e-4, 1e-3, 1e-2, 1e-1),
        "learning rates that every optimizer is given alike (thesis.part=rates)",
        above=0,
        high=1e3,
        identity=False,
    )
    maps: int = setting(
        1,
        "images of each class whose LIME, CAM and Grad-CAM are drawn at the end (thesis.part=finetune); 0 draws none",
        unit="images",
        low=0,
        high=20,
        identity=False,
    )


@dataclass(frozen=True)
class Settings:
    """All settings of `python -m search` and `python -m search.retrain`."""

    seed: int = setting(0, "seed of splits, views, sampler and training", low=0, high=2**31 - 1)
    protocol: str = setting(
        "search",
        "search: only the winner reads the test images; thesis (experiment=thesis_*): every configuration, and says so",
        choices=("search", "thesis"),
        identity=False,
    )
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    decision: DecisionSettings = field(default_factory=DecisionSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    thesis: ThesisSettings = field(default_factory=ThesisSettings)

"""Every knob of a training run. The docstring under a field is its help text; its type says what values it takes.

Flags are named after it: `--data.image_px 112` sets `TrainConfig.data.image_px`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["auto", "no", "fp16", "bf16"]
UnknownLabels = Literal["mask", "negative", "selective", "hill", "splc"]
Head = Literal["linear", "mlp", "category", "ml_decoder"]
ResizeOn = Literal["worker", "device"]
RGB = tuple[float, float, float]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
TIMM = "timm:"
"""In front of a backbone's name: one of timm's. What follows is known to timm alone, which takes seconds to import."""
Fit = Literal["squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Policy = Literal["none", "trivial", "randaugment"]
Mirroring = Literal["never", "kept", "swapped"]
"""What training did to crops: mirrored none; mirrored some and kept their labels; mirrored some and swapped the labels
of left and right.
"""
LEAST_PX, MOST_PX = 32, 4096  # sides of the network's input; a ResNet halves them five times
MOST_HIDDEN = 2**16  # what a bundle's card takes, which is written only after an epoch


def ranged(
    default: float | None, *, at_least: float | None = None, above: float | None = None, at_most: float | None = None
) -> Any:
    """A field with a default and the range that `attrtrain.config.load` holds its values to, where they are no None."""
    bounds = {"at least": at_least, "above": above, "at most": at_most}
    return field(
        default=default, metadata={"bounds": {rule: bound for rule, bound in bounds.items() if bound is not None}}
    )


@dataclass(frozen=True)
class RunConfig:
    """The run and its folder."""

    dir: str = "runs/train"
    """Folder of the run: configuration, metrics, checkpoints, bundle. A folder that holds a run goes on with it;
    settings that may not change on the way are refused.
    """
    seed: int = ranged(0, at_least=0, at_most=2**32 - 1)
    """Decides initial weights, order, augmentation and dropout."""
    timeout_seconds: float = ranged(600.0, above=0, at_most=1e7)
    """How long a process of several waits for the others before it gives up with a message."""


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    shards: list[str] = field(default_factory=list)
    """Shard folders, as `attrtrain shard` writes them, or their URLs (s3://, gs://, …); several with one vocabulary
    count as one data set.
    """
    cache_dir: str = ""
    """Folder on the node's own disk for shards that are read from URLs. Empty: one below the system's temporary
    folder.
    """
    cache_gb: float = ranged(100.0, above=0, at_most=1e9)
    """Gigabytes that folder may hold; what was not used for longest makes room."""
    train_split: str = "train"
    """Split to learn from."""
    val_split: str = "val"
    """Split to be judged on."""
    image_px: int = ranged(224, at_least=LEAST_PX, at_most=MOST_PX)
    """Side of the square every crop is resized to, pixels; at least 32, which a ResNet halves five times. The patch
    size of a vision transformer must divide it.
    """
    resize_on: ResizeOn = "worker"
    """Who resizes crops: the thread that decodes them, or (device) the GPU, a batch at a time, which leaves workers
    with decoding alone.
    """
    context: float | None = ranged(None, at_least=0)
    """Picture around the box that the network sees, as a share of the box's sides; at most what the shards store. null:
    all that they store.
    """
    fit: Fit = "squash"
    """How a crop fills the square: squash changes its aspect ratio; pad keeps it and adds bars of the mean colour."""
    interpolation: Interpolation | Literal["auto"] = "auto"
    """How crops are resized, with antialiasing where they shrink. auto: as the pictures that the backbone's pretrained
    weights were trained on.
    """
    flip: float = ranged(0.5, at_least=0, at_most=1)
    """Share of training crops mirrored left to right."""
    flip_swaps: bool = False
    """On mirrored crops, swap the labels of attributes whose names differ in nothing but left and right, such as
    left_wrist and right_wrist.
    """
    jitter: float = ranged(0.0, at_least=0, at_most=0.5)
    """Largest random shift of a training crop's box, and largest change of its width and height, as a share of each;
    the box stays inside the stored crop.
    """
    rotate: float = ranged(0.0, at_least=0, at_most=180)
    """Training crops are rotated by a random angle of up to this many degrees either way; corners are filled with the
    mean colour.
    """
    augment: Policy = "none"
    """Automatic augmentation of training crops, of colour and geometry: one operation of any strength (trivial:
    TrivialAugment) or two (RandAugment).
    """
    erase: float = ranged(0.0, at_least=0, at_most=1)
    """Share of training crops in which a random rectangle, 2 to 40 % of the area, is filled with the mean colour
    (random erasing).
    """
    mixup: float = ranged(0.0, at_least=0)
    """Parameter of the Beta distribution by which each training crop is blended with another of its micro-batch, and
    their losses alike (mixup). 0: not at all.
    """
    cutmix: float = ranged(0.0, at_least=0)
    """The same for CutMix, which pastes a rectangle of the other crop. With mixup too, each crop gets one or the
    other.
    """
    scales: list[float] = field(default_factory=list)
    """Sides of the network's training input, as multiples of image_px; every step draws one. Empty: image_px itself."""
    order: Literal["global", "block"] = "global"
    """global: every epoch shuffles all objects. block: it shuffles shards, and the objects of a window of shards, for
    data that is streamed.
    """
    window_shards: int = ranged(16, at_least=1)
    """Shards that are read from at a time in block order."""
    repeat_below: float = ranged(0.0, at_least=0, at_most=1)
    """Repeat-factor sampling: objects with an attribute that less than this share of objects is known to have are seen
    more often, by the square root of what it lacks. An epoch is as long as ever. 0: every object once. Only in global
    order."""
    workers: int = ranged(-1, at_least=-1, at_most=1024)
    """Threads that decode crops, for each training process. -1: none on a CPU, which is busy with the model, up to 8
    beside a GPU.
    """


@dataclass(frozen=True)
class LabelsConfig:
    """What the labels mean."""

    positive_at: float = ranged(0.5, above=0, at_most=1)
    """An attribute counts as present, in metrics, from this vote share on. The loss uses the vote shares themselves."""
    unknown: UnknownLabels = "mask"
    """What an unknown label means to the loss: nothing (mask), that the attribute is absent (negative), or, for labels
    of which most were never asked for, something between: absent where that kind of object hardly ever has it
    (selective), absent but cheap where the model is sure of the contrary (hill), absent at first and later what the
    model is sure of (splc)."""
    selective_below: float = ranged(0.05, at_least=0, at_most=1)
    """selective: an unknown attribute counts as absent where at most this share of known labels of the object's
    category has it.
    """


@dataclass(frozen=True)
class LossConfig:
    """What a known label costs."""

    name: Literal["bce", "focal", "asl"] = "bce"
    """Binary cross-entropy, focal loss, or asymmetric loss (ASL); all on vote shares, means over the known cells, or
    over all of them where unknown ones have a meaning.
    """
    gamma: float = ranged(2.0, at_least=0)
    """Focusing exponent of the focal loss."""
    gamma_positive: float = ranged(0.0, at_least=0)
    """Focusing exponent of positives in the asymmetric loss."""
    gamma_negative: float = ranged(4.0, at_least=0)
    """Focusing exponent of negatives in the asymmetric loss."""
    clip: float = ranged(0.05, at_least=0, at_most=0.5)
    """Probability up to which a negative costs nothing in the asymmetric loss."""
    smoothing: float = ranged(0.0, at_least=0, at_most=1)
    """Label smoothing: known labels are drawn this share of the way towards one half."""
    positive_weight: float = ranged(1.0, at_least=1, at_most=1e9)
    """Positives count as negatives / positives of their attribute in training, at most this much and at least one over
    it. 1: all alike.
    """


@dataclass(frozen=True)
class AuditConfig:
    """The quick look at the labels with which training starts."""

    strict: bool = False
    """Refuse to train on labels that look like noise. Otherwise it is only said. `attrtrain audit` looks closer."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "resnet50"
    """Network that turns a crop into features: resnet18, resnet34, resnet50 or resnet101 of torchvision, or timm:NAME,
    such as timm:convnext_tiny.
    """
    head: Head = "linear"
    """From features to one logit an attribute: one layer, features → hidden → attributes with dropout (mlp), the same
    with an embedding of the object's category beside the features (category), or attribute queries that attend to the
    feature map before pooling (ml_decoder)."""
    hidden: int = ranged(512, at_least=1, at_most=MOST_HIDDEN)
    """Width of the mlp and the category head."""
    dropout: float = ranged(0.5, at_least=0, at_most=1)
    """Dropout of the mlp and the category head."""
    category_dropout: float = ranged(0.1, at_least=0, at_most=1)
    """Share of training objects whose category is withheld from the category head in an epoch, so that it also learns
    to do without.
    """
    weights: str = "imagenet"
    """Where the backbone starts: imagenet (torchvision's or timm's own pretrained weights, downloaded), a .safetensors
    or .pth file, or none.
    """
    frozen: int = ranged(0, at_least=-1)
    """Leading layer groups of the backbone that are never updated, batch statistics included: 0 none, 1 the stem, 2 its
    first stage or block too, …; -1 the whole backbone (a linear probe). A ResNet has five: the stem and four stages."""


@dataclass(frozen=True)
class TrainSection:
    """How training goes."""

    epochs: int = ranged(10, at_least=1)
    """Passes over the training split."""
    patience: int = ranged(0, at_least=0)
    """Early stopping: training ends after so many epochs in a row without a better val mAP. 0: never. The learning rate
    follows `epochs` all the same.
    """
    global_batch: int = ranged(64, at_least=1)
    """Objects an optimizer step, over all processes."""
    micro_batch: int = ranged(0, at_least=0)
    """Objects a process puts through the network at once; the rest is accumulated. 0: its whole share of the global
    batch.
    """
    precision: Precision = "auto"
    """Arithmetic of the network. auto: bf16 where the device computes in it, fp16 on GPUs that do not, full precision
    elsewhere.
    """
    clip_norm: float = ranged(1.0, at_least=0)
    """Gradients longer than this are shortened to it. 0: never."""
    channels_last: bool = True
    """Memory layout that convolutions run fastest in."""
    compile: bool = False
    """Compile the network with torch.compile, for training and for the evaluation after each epoch. It needs a C++
    compiler, minutes at the start, and rounds differently; the bundle holds the plain network, so its scores may differ
    from the epoch's in the last digits. Not with FSDP."""
    sync_batchnorm: bool = False
    """Batch statistics over all GPUs instead of each one's own; for small micro-batches."""
    compress_gradients: bool = False
    """Gradients travel between GPUs as bf16, half the traffic."""
    ema: float = ranged(0.0, at_least=0, at_most=1)
    """Decay of an exponential moving average of the weights, which is then what is judged and shipped; warmed up. 0:
    none.
    """
    checkpoint_activations: bool = False
    """Activation (gradient) checkpointing: the backward pass computes activations again instead of keeping them. Less
    memory, about a third more time; the same results. Not with train.compile."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer."""
    lr: float = ranged(3e-4, above=0)
    """Highest learning rate. It does not depend on the number of processes."""
    weight_decay: float = ranged(1e-2, at_least=0)
    """Weight decay; never on biases and normalisation layers."""
    momentum: float = ranged(0.9, at_least=0, at_most=1)
    """Momentum of sgd."""
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "cosine"
    """Learning rate over the run: level, halved every `halve_every` epochs, down a cosine to 0, or up and down in one
    cycle.
    """
    halve_every: int = ranged(15, at_least=1)
    """Epochs between halvings of the step schedule."""
    warmup_epochs: float = ranged(0.0, at_least=0)
    """The rate rises from 0 in a line over this many epochs, fractions allowed. one_cycle has a rise of its own and
    ignores it.
    """
    layer_decay: float = ranged(1.0, above=0, at_most=1)
    """Factor by which the learning rate shrinks from each layer group to the one before it, from the head to the stem
    (layer-wise decay). 1: one rate for all.
    """
    head_epochs: float = ranged(0.0, at_least=0)
    """Epochs at the start, fractions allowed, in which the head alone is updated and the backbone's learning rate is
    0.
    """


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept: to go on from, and to use."""

    every_epochs: int = ranged(1, at_least=1)
    """Epochs between checkpoints; the last epoch always has one."""
    every_steps: int = ranged(0, at_least=0)
    """Optimizer steps between checkpoints, besides those of epochs. 0: none."""
    every_minutes: float = ranged(0.0, at_least=0)
    """Minutes between checkpoints, besides those of epochs. 0: none."""
    keep_last: int = ranged(2, at_least=1)
    """Newest checkpoints kept. The best one is kept besides."""
    keep_bundles: int = ranged(0, at_least=0)
    """Bundles of this many newest epochs kept in bundles/, beside that of the best epoch: models that may answer
    together, averages where train.ema makes them. 0: none.
    """
    resume: str = "auto"
    """auto: go on with the run in run.dir, if there is one; never: refuse a folder that holds one; a path: go on from
    that checkpoint.
    """


@dataclass(frozen=True)
class TrackConfig:
    """Where the numbers go besides metrics.jsonl."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases. auto: online where an API key is found, offline elsewhere."""
    project: str = ""
    """Weights & Biases project. Empty: the environment's WANDB_PROJECT, else attrtrain. Its entity is the account's
    own; the environment's WANDB_ENTITY names another."""
    group: str = ""
    """Weights & Biases group, such as the name of an experiment of several runs. Empty: the run's own id."""
    tags: list[str] = field(default_factory=list)
    """Weights & Biases tags."""
    notes: str = ""
    """What Weights & Biases shows beside the run, for people."""
    tensorboard: bool = False
    """Numbers and pictures also to TensorBoard, in RUN/tensorboard. Needs the extra `tensorboard`."""
    every_steps: int = ranged(10, at_least=1)
    """Optimizer steps between two lines of training metrics."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainSection = field(default_factory=TrainSection)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

"""What goes over the wire, as pydantic models: /openapi.json is made from them."""

from dataclasses import dataclass

from pydantic import BaseModel, Field

BoxField = tuple[float, float, float, float]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        queue: requests under way at once.
        bytes: of a request's body.
        pixels: of a picture.
        boxes: in a request.
        seconds: a request may take, from its headers to its answer.
    """

    queue: int
    bytes: int
    pixels: int
    boxes: int
    seconds: float


class AttributeScore(BaseModel):
    """One attribute of one object: present when its score reaches its threshold."""

    name: str
    score: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    present: bool


class PredictedObject(BaseModel):
    """One box, x, y, width, height in pixels of the upright picture, and all attributes that had a label in training,
    the likeliest first.
    """

    box: BoxField
    attributes: list[AttributeScore]


class Prediction(BaseModel):
    """What the model says of one picture: an object for each box, in the order of the boxes."""

    width: int
    height: int
    objects: list[PredictedObject]


class VocabularyEntry(BaseModel):
    """An attribute of the model's vocabulary; `tuned` says whether its threshold was tuned on labels, `trained` whether
    training had a label of it. What was not trained is in no answer.
    """

    name: str
    group: str
    threshold: float
    tuned: bool
    trained: bool


class RequestLimits(BaseModel):
    """What a request may ask for: bytes of its body, pixels of the picture, boxes, seconds."""

    bytes: int
    pixels: int
    boxes: int
    seconds: float


class ModelInfo(BaseModel):
    """What is served. `categories` are what objects may be said to be; none where the model looks at crops alone."""

    name: str
    fingerprint: str
    backbone: str
    image_px: int
    attributes: list[VocabularyEntry]
    categories: list[str]
    metrics: dict[str, float | None]
    threshold_note: str
    limits: RequestLimits


class Health(BaseModel):
    """Whether it works, and what it has done: `queue` requests are under way, `crops` went through the network in
    `batches`.
    """

    ok: bool
    fingerprint: str
    uptime_seconds: float
    queue: int
    crops: int
    batches: int


class ErrorDetail(BaseModel):
    """`code` is for programs and does not change, `message` is for people."""

    code: str
    message: str


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


class RefusedError(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

"""`attrtrain serve`: a trained model behind HTTP, with a page to try it on."""

import argparse
import logging
import math
import signal
import socket
import sys

from attrtrain.errors import ConfigError
from attrtrain.garbage import no_garbage_collection
from attrtrain.inference.command import add_model_argument

_LAST_PORT = 65_535
EXAMPLES = """examples:
  attrtrain serve --model runs/coco
  attrtrain serve --model runs/coco --host 0.0.0.0 --port 80 --queue 256"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model_argument(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, metavar="N", help="port; 0 takes a free one (default: %(default)s)")
    add("--max-batch", type=int, default=32, metavar="N", help="crops that go through the network together (default: %(default)s)")  # fmt: skip
    add("--max-wait-ms", type=float, default=5.0, metavar="MS", help="how long a crop waits for others (default: %(default)s)")  # fmt: skip
    add("--queue", type=int, default=64, metavar="N", help="requests under way at once; more are sent away with 503 (default: %(default)s)")  # fmt: skip
    add("--max-mb", type=float, default=20.0, metavar="MB", help="size of a request, in million bytes (default: %(default)s)")  # fmt: skip
    add("--max-megapixels", type=float, default=50.0, metavar="MP", help="size of a picture, in million pixels (default: %(default)s)")  # fmt: skip
    add("--max-boxes", type=int, default=100, metavar="N", help="boxes in a request (default: %(default)s)")
    add("--timeout", type=float, default=30.0, metavar="S", help="seconds a request may take, sending it included (default: %(default)s)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C, finishes the requests under way, and returns 0."""
    _check(arguments)
    try:
        import python_multipart  # noqa: F401  what reads forms
        import uvicorn

        with no_garbage_collection():
            from attrtrain.serving.app import make_app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "starlette", "uvicorn", "multipart", "python_multipart"):
            raise
        raise ConfigError("serve needs fastapi, uvicorn and python-multipart: pip install 'attrtrain[serve]'") from None
    from attrtrain.bundle import model_name
    from attrtrain.inference.predictor import Predictor
    from attrtrain.serving.contracts import Limits

    limits = Limits(
        queue=arguments.queue,
        bytes=round(arguments.max_mb * 1e6),
        pixels=round(arguments.max_megapixels * 1e6),
        boxes=arguments.max_boxes,
        seconds=arguments.timeout,
    )
    with _listening(arguments.host, arguments.port) as listener:  # first: it fails at once, a model takes seconds
        predictor = Predictor(arguments.model)
        app = make_app(predictor, model_name(arguments.model), limits, arguments.max_batch, arguments.max_wait_ms)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none", http="h11", loop="asyncio",
            timeout_graceful_shutdown=math.ceil(arguments.timeout) + 1,
        )  # fmt: skip
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when it has stopped
            signal.signal(number, lambda *_: None)
        # It tells of each malformed form, as its answer does.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        _listen(listener, arguments)
        if predictor.threshold_note:
            print(f"note: {predictor.threshold_note}", file=sys.stderr)
        host, port = listener.getsockname()[:2]
        print(f"serving {arguments.model} at http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops)", flush=True)  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])
    print("stopped")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for flag, least in (("max_batch", 1), ("queue", 1), ("max_boxes", 1), ("port", 0)):
        if (value := getattr(arguments, flag)) < least:
            raise ConfigError(f"--{flag.replace('_', '-')} {value}: must be at least {least}")
    if arguments.port > _LAST_PORT:  # else its last 16 bits would be taken
        raise ConfigError(f"--port {arguments.port}: must be at most {_LAST_PORT}")
    for flag in ("max_mb", "max_megapixels", "timeout"):
        if not 0 < (value := getattr(arguments, flag)) < math.inf:
            raise ConfigError(f"--{flag.replace('_', '-')} {value:g}: must be above 0")
    from PIL import Image

    most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6  # beyond that Pillow refuses a picture as a decompression bomb
    if arguments.max_megapixels > most:
        raise ConfigError(f"--max-megapixels {arguments.max_megapixels:g}: must be at most {math.floor(most)}")
    if not 0 <= arguments.max_wait_ms < math.inf:
        raise ConfigError(f"--max-wait-ms {arguments.max_wait_ms:g}: must be at least 0")


def _listen(listener: socket.socket, arguments: argparse.Namespace) -> None:
    """Raises ConfigError where another has begun to listen at the address meanwhile: several may be bound to it until
    one does.
    """
    try:
        listener.listen(2048)
    except OSError as error:
        raise _taken(arguments.host, arguments.port, error) from None


def _taken(host: str, port: int, error: Exception) -> ConfigError:
    told = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ConfigError(f"--host {host} --port {port}: cannot listen there ({told}); choose another")


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises:
        ConfigError: it is taken, not allowed, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise _taken(host, port, error) from None
    return listener

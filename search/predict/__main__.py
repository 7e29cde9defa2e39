"""`python -m search.predict`: images to a table of classes and probabilities, with maps on request."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence

from lightning_modules.training.allocator import keep_freed_memory
from search.command_line.exits import run_command
from search.predict.arguments import Arguments, help_text, parse

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Predict images; returns the exit code: 0, 1 (the disk), 2 (bad input, nothing written), 130 (stopped)."""
    return run_command("predict", arguments, help_text, lambda: _predict(parse(arguments)))


def _predict(arguments: Arguments) -> int:
    try:
        return _predict_and_say(arguments)
    except BrokenPipeError:  # `to=- | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 0
    except (OSError, sqlite3.Error) as error:  # the list of images is a database on disk
        print(f"predict: the results cannot be written ({getattr(error, 'strerror', None) or error})", file=sys.stderr)
        return 1


def _predict_and_say(arguments: Arguments) -> int:
    from search.predict.image_list import listed_images
    from search.predict.new_files import check_places

    check_places(arguments.images, arguments.to, arguments.maps_to, overwrite=arguments.overwrite)
    with listed_images(arguments.images) as images:
        from search.tracking.models import chosen_model, resolve_model

        named = chosen_model(arguments.model, arguments.root, lambda line: print(f"predict: {line}", file=sys.stderr))
        model = resolve_model(named, arguments.root)
        from search.predict.run import predict_images

        predicted = predict_images(model, images, arguments)
        for note in images.notes:
            print(f"predict: {note}", file=sys.stderr)
    aside = f", {predicted.set_aside} set aside (column error)" if predicted.set_aside else ""
    nothing = f" ({predicted.flat} show nothing: one grey value)" if predicted.flat else ""
    by_hand = "" if predicted.by_hand is None else f", {predicted.by_hand} by hand"
    unknown = "" if predicted.unknown is None else f", {predicted.unknown} unlike anything in training"
    with_maps = f", maps in {arguments.maps_to}" if arguments.maps else ""
    card = model.card
    out = sys.stdout if arguments.to else sys.stderr
    print(
        f"Predicted {predicted.images} images{nothing}{by_hand}{unknown}{aside} with {named} "
        f"({card.architecture}, {len(card.classes)} classes): {arguments.to or 'standard output'}{with_maps}",
        file=out,
    )
    print(*predicted.summary(), sep="\n", file=out)
    return 0


if __name__ == "__main__":
    keep_freed_memory()  # 5,000 small images: 17 s instead of 21
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is half written is removed on the way out
    sys.exit(main(sys.argv[1:]))

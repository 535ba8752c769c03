"""`gafcore COMMAND`: parses the flags, runs the command, and turns failures into one line and an exit code.

0: the thing was done. 2: wrong input. 1: anything else. 130 and 143: interrupted (a checkpoint was written where the command says so).
"""

from __future__ import annotations

import functools
import operator
import os
import sys
import traceback
from typing import Annotated, Any

import tyro

from gafcore.errors import GafError


def commands() -> Any:
    """The union type that tyro makes subcommands of. Imported here, so that `import gafcore` stays light."""
    from gafcore.cli.ablate import Ablate
    from gafcore.cli.bench import Bench
    from gafcore.cli.demo import Demo
    from gafcore.cli.doctor import Doctor
    from gafcore.cli.evaluate import Eval
    from gafcore.cli.fit import Fit
    from gafcore.cli.render import Render
    from gafcore.cli.synth import Synth
    from gafcore.cli.track import Track
    from gafcore.cli.train_prior import TrainPrior

    named = {"demo": Demo, "synth": Synth, "track": Track, "fit": Fit, "eval": Eval, "render": Render}
    named |= {"train-prior": TrainPrior, "ablate": Ablate, "bench": Bench, "doctor": Doctor}
    kinds = [Annotated[cls, tyro.conf.subcommand(name, description=cls.__doc__, prefix_name=False)] for name, cls in named.items()]
    return functools.reduce(operator.or_, kinds)


def report(error: BaseException, debug: bool) -> int:
    """Print a failure to stderr and return its exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, GafError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, OSError):
        message, code = str(error), 1
    else:
        message, code = f"internal error: {type(error).__name__}: {error} (run again with --debug and report it)", 1
    if not debug:
        print(f"gafcore: {' '.join(message.split())}", file=sys.stderr)
    return code


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `gafcore` script; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("GAFCORE_DEBUG"))
    arguments = [a for a in arguments if a != "--debug"]
    try:
        command = tyro.cli(
            commands(),
            prog="gafcore",
            description="Animatable 3D Gaussian head avatars from monocular video. `gafcore COMMAND --help` explains a command; "
            "--debug anywhere shows tracebacks.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        command.run()
    except SystemExit:
        raise
    except BaseException as error:
        return report(error, debug)
    return 0


if __name__ == "__main__":
    sys.exit(main())

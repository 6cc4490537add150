"""``conductor tests predict|select|prioritize|flaky|classify``."""

import typer

from conductor_client.testing.cli.flakiness import classify, flaky
from conductor_client.testing.cli.runs import predict, prioritize, select

tests_commands = typer.Typer(
    help="Which tests fail, which to run, in which order, which are flaky.", no_args_is_help=True
)
for _command in (select, predict, prioritize, flaky, classify):
    tests_commands.command()(_command)

"""The `pixeldojo` command: arguments in, one command called, every foreseeable fault out as a line and an exit code.

Commands are named by import path, so that `keys create` doesn't wait for the HTTP server's imports.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from pixeldojo import __version__, errors, settings
from pixeldojo.catalogue.card import CardError
from pixeldojo.cli import outcome, show
from pixeldojo.cli.outcome import CommandFailed, Exit

_CODES = "\n".join(f"{int(ends):>3}  {ends.text}" for ends in Exit)

app = App(
    name="pixeldojo",
    help="Make images and videos with your own models, through an API that agents can drive.",
    help_epilogue=f"Exit codes:\n{_CODES}",
    help_format="plaintext",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
_keys = App(name="keys", help="Make, show, rotate and revoke API keys.")
_credits = App(name="credits", help="Show and grant credits, and what they went for.")
_accounts = App(name="accounts", help="Make, show and change accounts.")
_webhooks = App(name="webhooks", help="Show what was sent to webhooks, and the secret that signs it.")
_db = App(name="db", help="Look after the database.")

_ACCOUNT, _CLIENT = "pixeldojo.cli.account_commands", "pixeldojo.cli.client_commands"
_SERVICE, _WEBHOOKS = "pixeldojo.cli.service_commands", "pixeldojo.cli.webhook_commands"

app.command("pixeldojo.cli.serve_command:serve", name="serve", help="Run the service.")
app.command(f"{_CLIENT}:generate", name="generate", help="Make a picture or a video and save it.")
app.command(f"{_CLIENT}:models", name="models", help="Show the models, or one of them.")
app.command(f"{_CLIENT}:jobs", name="jobs", help="Show your jobs, or one of them.")
app.command("pixeldojo.cli.skill_command:skill", name="skill", help="Write the agent skill into a folder.")
app.command(
    "pixeldojo.cli.mcp_command:mcp", name="mcp", help="Serve a running service's tools to an agent, over stdio."
)
for _group in (_keys, _credits, _accounts, _webhooks, _db):
    app.command(_group)
app.command(f"{_SERVICE}:doctor", name="doctor", help="Check settings, database, models and the running service.")
_keys.command(f"{_ACCOUNT}:create_key", name="create", help="Make an API key and show it, once.")
_keys.command(f"{_ACCOUNT}:list_keys", name="list", help="Show an account's keys, without their secrets.")
_keys.command(f"{_ACCOUNT}:revoke_key", name="revoke", help="Revoke a key: it stops working at once.")
_keys.command(f"{_ACCOUNT}:rotate_key", name="rotate", help="Put a new key in the place of an old one.")
_credits.command(f"{_ACCOUNT}:show_usage", name="usage", help="Show what jobs cost, by day and model.")
_credits.command(f"{_ACCOUNT}:balance", name="balance", help="Show how many credits an account has.")
_credits.command(f"{_ACCOUNT}:grant", name="grant", help="Give an account credits.")
_credits.command(f"{_ACCOUNT}:list_entries", name="ledger", help="Show what came and went, the newest first.")
_accounts.command(f"{_ACCOUNT}:create_account", name="create", help="Make an account.")
_accounts.command(f"{_ACCOUNT}:list_accounts", name="list", help="Show every account.")
_accounts.command(f"{_ACCOUNT}:set_account", name="set", help="Change what limits an account.")
_webhooks.command(f"{_WEBHOOKS}:secret", name="secret", help="Show or rotate the secret that signs webhooks.")
_webhooks.command(f"{_WEBHOOKS}:show_webhook", name="show", help="Show what was sent to a job's webhook.")
_db.command(f"{_SERVICE}:migrate", name="migrate", help="Bring the database's schema up to date.")


def _fault(error: BaseException) -> CommandFailed | None:
    """The foreseeable fault that `error` is, or None."""
    match error:
        case CommandFailed():
            return error
        case errors.PixelDojoError():
            return outcome.from_room(error)
        case CycloptsError():
            return outcome.usage(f"{str(error).strip()} (--help shows how)")
        case settings.SettingsError():
            return outcome.usage(str(error))
        case CardError():
            return outcome.usage(f"PIXELDOJO_MODELS_DIR: {error}")
        case errors.DatabaseUnavailable():
            text = f"the database is not available: {error}; `pixeldojo doctor` looks into it"
            return CommandFailed(text, code="database_unavailable", ends=Exit.UNREACHABLE)
        case KeyboardInterrupt():
            return CommandFailed("interrupted", code="interrupted", ends=Exit.INTERRUPTED)
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return CommandFailed(where + (error.strerror or str(error)), code="system_error", ends=Exit.FAILED)
    return None


def _wants_json(arguments: Sequence[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


def run(arguments: Sequence[str]) -> Exit:
    """Run the command line `arguments` (without the program's name)."""
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
            raise
        fault = _fault(error)
        if fault is None:
            raise
        show.failure(fault, as_json=_wants_json(arguments))
        return fault.ends
    return result if isinstance(result, Exit) else Exit.OK


def main() -> None:
    """The entry point of `pixeldojo`."""
    try:
        ends = run(sys.argv[1:])
    except BrokenPipeError:  # `pixeldojo models | head`: whoever read us has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ends = Exit.FAILED
    sys.exit(int(ends))

"""Serve studies as a live page, or export one as an HTML file: `python -m dashboards`."""

from __future__ import annotations

import gc
import ipaddress
import secrets
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import psutil
import typer

from analysis.store.requests import RequestError, sweep_name
from dashboards.source import MLFLOW_URL, PageSource
from gigatok.text.options import RunsDir, TrackingUri
from gigatok.text.places import DEFAULT_RUNS, as_seen, beside

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Watch studies in a browser: read from the tracking store, never from folders or logs.",
)

Mlflow = Annotated[
    str | None, typer.Option(help=f"Where links to runs lead. Default: {MLFLOW_URL}.")
]


@app.callback(invoke_without_command=True)
def watch(
    context: typer.Context,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    port: Annotated[int | None, typer.Option(help="Default: 8501, or the next free one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    mlflow_url: Mlflow = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that browsers reach the page by, such as a proxy's."),
    ] = None,
    allow_actions: Annotated[
        bool,
        typer.Option("--allow-actions", help="Stop and retry from the page, on this machine."),
    ] = False,
) -> None:
    """Serve the live page until Ctrl-C."""
    # Typer calls this before a subcommand, too.
    if context.invoked_subcommand is not None:
        return
    # Asked before it is imported: it is an extra, and a traceback names no remedy.
    _need("streamlit")
    token = secrets.token_urlsafe(16) if allow_actions else ""
    if allow_actions and (allow_host or not _is_loopback(host)):
        typer.echo(
            "error: --allow-actions goes with this machine alone: leave out --host and "
            "--allow-host, and use `ssh -L` to reach the page from elsewhere",
            err=True,
        )
        raise typer.Exit(2)
    if not _is_loopback(host):
        typer.echo(
            f"--host {host}: everyone who reaches this address can read all studies of the store; "
            "there is no password. Leave it out and use `ssh -L` to watch from elsewhere.",
            err=True,
        )
    source = PageSource.of(runs_dir, tracking_uri, mlflow_url, token)
    if token:
        typer.echo(f"Stop and retry: open the address below with /?token={token}")
    raise typer.Exit(_serve(source, host, port, [*host_names(host), *(allow_host or [])]))


@app.command()
def export(
    sweep: Annotated[str, typer.Argument(help="Name of the sweep, or its YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Default: reports/SWEEP.html beside the runs.")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="Only launches at this scale.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    mlflow_url: Mlflow = None,
) -> None:
    """Write a study as one HTML file that needs no network."""
    _need("vl_convert")
    from dashboards.static import write_page

    source = PageSource.of(runs_dir, tracking_uri, mlflow_url)
    try:
        name = sweep_name(sweep)
        file = out or beside(runs_dir, "reports") / f"{name}.html"
        typer.echo(as_seen(write_page(source, name, scale, file)))
    except RequestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _need(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        typer.echo(
            f"error: {' and '.join(missing)} missing; pip install -e '.[dashboards]'", err=True
        )
        raise typer.Exit(2)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        # All of 127.0.0.0/8 and ::1, in any spelling.
        return ipaddress.ip_address(host).is_loopback
    # A name: it may resolve to any address, so that the warning is given.
    except ValueError:
        return False


def host_names(host: str) -> list[str]:
    """List the names by which a browser may rightly ask for the page.

    Any other is an attack: a page elsewhere has its own name resolve to this machine (DNS
    rebinding), so that its scripts may talk to us as if we were their server.
    """
    local = ["localhost", "127.0.0.1", "::1"]
    if _is_loopback(host):
        return list(dict.fromkeys([*local, host]))
    # Listening on 0.0.0.0 means on every address of this machine; browsers use any of them.
    own = [socket.gethostname(), socket.getfqdn()]
    addresses = [a.address for found in psutil.net_if_addrs().values() for a in found]
    plain = [address.partition("%")[0] for address in addresses]  # fe80::1%eth0 has a scope
    return list(dict.fromkeys([*local, host, *own, *plain]))


def _warm(source: PageSource) -> None:
    """Import what the page does, and read the newest study once: the first view need not wait."""
    # Streamlit runs the page in this process, so that what is imported here is imported for the
    # page, and what is read here is kept for it.
    from dashboards import compare_view, curves_view, reading, search_view, study_view, trial_view  # noqa: F401

    try:
        at = reading.version(source.uri)
        # An empty store has no study: only the imports are done then.
        for title in reading.titles(source.uri, at)[:1]:
            study = reading.load(source.uri, title, title.run_id, at)
            reading.first_view(source, study, at)
    except RequestError as error:
        typer.echo(f"{error}\nThe page says so too, and looks again.", err=True)
    # Streamlit looks for garbage after every run of the page, among all modules as well: a
    # quarter of a second in which nothing is sent. What is there by now stays.
    gc.freeze()


def _serve(source: PageSource, host: str, port: int | None, names: Sequence[str]) -> int:
    """Run Streamlit in this process; returns its exit code."""
    from streamlit.web.cli import main

    options = {
        "server.address": host,
        # Otherwise it opens a browser, which a host behind `ssh -L` does not have.
        "server.headless": "true",
        # Both are the defaults, which a user's own configuration must not turn off.
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        # The code does not change while it runs; Streamlit would watch the files of all imported
        # modules.
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": host,
        "client.toolbarMode": "minimal",
        # A view in the address goes before the default: Streamlit would print a stack of it.
        "global.disableWidgetStateDuplicationWarning": "true",
        # A traceback on the page would show paths and addresses to everyone who can read it.
        "client.showErrorDetails": "none",
        # No base: light or dark, as the reader's system is.
        "theme.light.primaryColor": "#00609A",
        "theme.dark.primaryColor": "#56B4E9",
    }
    if port is not None:
        options["server.port"] = str(port)
    _warm(source)
    # Streamlit runs a file, not a module.
    page = Path(__file__).with_name("page.py")
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [f"--server.allowedHosts={name}" for name in names]
    # The page gets what stands behind `--` as its own `sys.argv`, at every run. Other users read
    # the command line of this process, where the token is not.
    sys.argv = ["streamlit", "run", str(page), *flags, "--", *source.arguments()]
    code = main(args=sys.argv[1:], standalone_mode=False)
    return int(code or 0)


if __name__ == "__main__":
    app(prog_name="python -m dashboards")

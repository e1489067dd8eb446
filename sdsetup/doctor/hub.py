"""Checks of the way to the model hub. Offline is a state, not a failure."""

from __future__ import annotations

from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.purpose import Kind
from sdsetup.doctor.registry import CheckContext, check
from sdsetup.machine.facts import Hub

_LOADS: frozenset[Kind] = frozenset({"anything", "install", "convert"})
_TOKENS = "https://huggingface.co/settings/tokens"
# TLS and signed download addresses allow minutes.
_CLOCK_SECONDS = 120
# Certificates of these are made on the way, by a company's gateway or a virus scanner.
_INTERCEPTORS = (
    *(
        "zscaler",
        "netskope",
        "fortinet",
        "palo alto",
        "blue coat",
        "symantec web",
        "forcepoint",
        "cisco umbrella",
    ),
    *(
        "sophos",
        "kaspersky",
        "avast",
        "avg technologies",
        "eset",
        "bitdefender",
        "mitmproxy",
        "fiddler",
        "burp",
    ),
)


def _offline(hub: Hub) -> Verdict | None:
    if hub.reach == "online":
        return None
    return skipped(f"the hub was not reached ({hub.detail or hub.reach})")


@check(
    "hub.reachable",
    "Model hub",
    why="Checkpoints are downloaded from it; what is in the cache already works without.",
    reads="hub",
    kinds=_LOADS,
)
def reachable(context: CheckContext) -> Verdict:
    """See whether it answers."""
    hub = context.hub
    if hub.reach == "online":
        return ok(f"{hub.endpoint} answered in {1000 * hub.seconds:.0f} ms")
    if hub.reach == "error":
        command = (
            shell.unset_variable(context, "HF_ENDPOINT")
            if not hub.default_endpoint
            else shell.sdsetup(context, "doctor", "--only", "hub.reachable")
        )
        return failure(
            f"{hub.endpoint} does not answer as a hub: {hub.detail}",
            Fix(
                says="Correct HF_ENDPOINT, or unset it to use the hub itself"
                if not hub.default_endpoint
                else "Try again in a while",
                commands=(command,),
            ),
        )
    return skipped(f"offline: {hub.detail or 'nothing answers'}; what is in the cache still works")


@check(
    "hub.endpoint",
    "Hub or mirror",
    why="A mirror may lack models, and some send the data's download back to the hub itself.",
    reads="hub",
    kinds=_LOADS,
)
def endpoint(context: CheckContext) -> Verdict:
    """Say which endpoint is used, and where the data would come from."""
    hub = context.hub
    data = f"; the data of {hub.model} comes from {hub.data_host}" if hub.data_host else ""
    if hub.default_endpoint:
        return ok(f"{hub.endpoint}{data}")
    if hub.data_host.endswith(("huggingface.co", ".hf.co")):
        return warning(
            f"{hub.endpoint} is set by HF_ENDPOINT, yet{data.removeprefix(';')}",
            Fix(
                says="Where the hub is blocked this mirror will not help; use one that carries the data",
                commands=(shell.unset_variable(context, "HF_ENDPOINT"),),
            ),
        )
    return ok(f"{hub.endpoint}, set by HF_ENDPOINT{data}")


@check(
    "hub.proxy",
    "Proxy",
    why="pip and the hub go through it; a wrong one looks like having no network.",
    reads="hub",
    kinds=_LOADS,
)
def proxy(context: CheckContext) -> Verdict:
    """See whether the proxy that is set answers."""
    hub = context.hub
    if not hub.proxy:
        return ok("none is set")
    if hub.reach != "proxy":
        return ok(f"{hub.proxy}, set by {hub.proxy_variable}")
    variable = hub.proxy_variable if hub.proxy_variable.lower().endswith("_proxy") else "HTTPS_PROXY"
    return failure(
        f"{hub.proxy}, set by {hub.proxy_variable}, does not let us through: {hub.detail}",
        Fix(
            says="Correct it, or take it away if there is no proxy any more",
            commands=(shell.unset_variable(context, variable),),
        ),
    )


@check(
    "hub.tls",
    "Certificates",
    why="A gateway that opens TLS shows its own certificate, which Python does not trust by itself.",
    reads="hub",
    kinds=_LOADS,
)
def tls(context: CheckContext) -> Verdict:
    """See whether the hub's certificate is trusted and whose it is."""
    hub = context.hub
    fix = Fix(
        says="Give Python your organisation's root certificate, exported as a PEM file",
        commands=(
            shell.set_variable(context, "SSL_CERT_FILE", "organisation.pem"),
            shell.set_variable(context, "REQUESTS_CA_BUNDLE", "organisation.pem"),
        ),
    )
    if hub.reach == "tls":
        return failure(f"the certificate of {hub.endpoint} is not trusted: {hub.detail}", fix)
    offline = _offline(hub)
    if offline is not None:
        return offline
    if any(name in hub.issuer.lower() for name in _INTERCEPTORS):
        return warning(f"the certificate was made on the way by {hub.issuer}", fix)
    return ok(f"issued by {hub.issuer}" if hub.issuer else "the endpoint uses no TLS")


@check(
    "hub.token",
    "Access token",
    why="Gated and private models need one; a refused one makes even public models fail.",
    reads="hub",
    kinds=_LOADS,
)
def token(context: CheckContext) -> Verdict:
    """See whether there is a token, whether it is accepted, and what it may do."""
    hub = context.hub
    if hub.token_state == "none":
        return ok("none; public models need none")
    if hub.token_state == "refused":
        variable = hub.token_source if hub.token_source.isupper() else ""
        return failure(
            f"the hub refuses the token from {hub.token_source}: it is expired, revoked or mistyped",
            Fix(
                says=f"Make a new one of the kind 'read' at {_TOKENS} and sign in",
                commands=(
                    *((shell.unset_variable(context, variable),) if variable else ()),
                    shell.sdsetup(context, "login"),
                ),
            ),
        )
    if hub.token_state == "malformed":
        variable = hub.token_source if hub.token_source.isupper() else ""
        return failure(
            f"the token from {hub.token_source} {hub.token_fault}",
            Fix(
                says=f"Put the token alone there, on one line and without quotes; see {_TOKENS}",
                commands=(
                    *((shell.unset_variable(context, variable),) if variable else ()),
                    shell.sdsetup(context, "login"),
                ),
            ),
        )
    if hub.token_state == "unknown":
        return skipped(f"there is one from {hub.token_source}; {hub.detail or 'the hub was not reached'}")
    kind = hub.token_kind or "unnamed"
    if kind == "write":
        return warning(
            f"the token from {hub.token_source} may write; sdsetup only ever reads",
            Fix(
                says=f"Use one of the kind 'read', from {_TOKENS}",
                commands=(shell.sdsetup(context, "login"),),
            ),
        )
    return ok(f"accepted, of the kind {kind}, from {hub.token_source}")


@check(
    "hub.hidden-token",
    "One token only",
    why="A token in HF_TOKEN wins over the saved one, so signing in again seems to change nothing.",
    reads="hub",
    kinds=_LOADS,
)
def hidden_token(context: CheckContext) -> Verdict:
    """Find a saved token that a variable hides."""
    hub = context.hub
    if not hub.hidden_token:
        return ok("no token hides another")
    return warning(
        f"{hub.token_source} hides another token, saved in {hub.hidden_token}",
        Fix(says="Use the saved one", commands=(shell.unset_variable(context, hub.token_source),)),
    )


@check(
    "hub.access",
    "Access to the model",
    why="Some models are given only to accounts that accepted their terms.",
    reads="hub",
    kinds=_LOADS,
)
def access(context: CheckContext) -> Verdict:
    """See whether the named model may be read."""
    hub = context.hub
    if not hub.model:
        return skipped("no model was named; --for convert OWNER/NAME asks for one")
    offline = _offline(hub)
    if offline is not None:
        return offline
    page = f"{hub.endpoint}/{hub.model}"
    match hub.access:
        case "granted":
            return ok(f"{hub.model} may be read")
        case "gated":
            return failure(
                f"{hub.model} is gated and this account has no access",
                Fix(
                    says=f"Accept its terms at {page}, then sign in",
                    commands=(shell.sdsetup(context, "login"),),
                ),
            )
        case "missing":
            return failure(
                f"{hub.model} does not exist at {hub.endpoint}, or is private",
                Fix(
                    says="Check the spelling; for a private model sign in",
                    commands=(shell.sdsetup(context, "login"),),
                ),
            )
        case _:
            return skipped(hub.detail or "the hub gave no clear answer")


@check(
    "hub.clock",
    "Clock",
    why="With a clock that is minutes off, certificates and signed downloads look expired.",
    reads="hub machine",
)
def clock(context: CheckContext) -> Verdict:
    """Compare the clock with the hub's."""
    offline = _offline(context.hub)
    if offline is not None:
        return offline
    ahead = context.hub.clock_ahead_seconds
    if ahead is None:
        return skipped("the hub's answer carried no date")
    seen = f"{abs(ahead):.0f} s {'ahead of' if ahead >= 0 else 'behind'} the hub's"
    if abs(ahead) < _CLOCK_SECONDS:
        return ok(seen)
    command = {"win32": "w32tm /resync", "darwin": "sudo sntp -sS time.apple.com"}.get(
        context.machine.platform, "sudo timedatectl set-ntp true"
    )
    return failure(seen, Fix(says="Set the clock by the network", commands=(command,)))

"""Options that the commands of all gRPC processes have in common. What they mean in full is in ``settings.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HostOption = Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1)")]
TlsCertOption = Annotated[Path | None, typer.Option(help="PEM file of the certificate chain")]
TlsKeyOption = Annotated[Path | None, typer.Option(help="PEM file of the private key")]
TlsClientCaOption = Annotated[Path | None, typer.Option(help="Take only clients with a certificate by this CA")]
JwksOption = Annotated[str | None, typer.Option(help="Keys of the tokens: a JWKS file or https:// address")]
IssuerOption = Annotated[str | None, typer.Option(help="Issuer that tokens must come from")]
AudienceOption = Annotated[str | None, typer.Option(help="Audience of the tokens (default conductor)")]
ApiKeysOption = Annotated[Path | None, typer.Option(help="File of API keys, see `conductor keys`")]
CertificateIdentitiesOption = Annotated[
    Path | None, typer.Option(help="TOML file: whom a client's certificate stands for; needs --tls-client-ca")
]
AuditFileOption = Annotated[
    Path | None, typer.Option(help="File that administrative calls are noted in (default: standard error)")
]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="No TLS, no credentials: on your own machine only")]
GraceOption = Annotated[
    float | None, typer.Option(help="Seconds to go on serving after SIGTERM, as NOT_SERVING (default 1)")
]

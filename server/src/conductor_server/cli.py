"""``conductor serve``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conductor_client.output import FAILED, USAGE, OutputFormat, OutputOption, fail
from conductor_rpc.options import (
    ApiKeysOption,
    AudienceOption,
    AuditFileOption,
    CertificateIdentitiesOption,
    GraceOption,
    HostOption,
    InsecureOption,
    IssuerOption,
    JwksOption,
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
)

if TYPE_CHECKING:
    from conductor_server.settings import ServerSettings


def serve(
    *,
    host: HostOption = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (default 50051)")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (default 1)")] = None,
    model_store: Annotated[
        str | None, typer.Option(help="Path or URL of the model store (default .conductor/models)")
    ] = None,
    model_trusted_keys: Annotated[
        list[Path] | None,
        typer.Option(help="Public key (PEM) that models must be signed with, or a folder of such; may be repeated"),
    ] = None,
    model_trusted_operator_keys: Annotated[
        list[Path] | None,
        typer.Option(help="Public key that moves of channels must be signed with (default: the trusted keys)"),
    ] = None,
    model_operator_key: Annotated[
        Path | None,
        typer.Option(help="Private key to sign moves with; without it, this server moves no signed channel"),
    ] = None,
    model_pointer_memory: Annotated[
        Path | None, typer.Option(help="File that remembers the latest signed moves over restarts (default: none)")
    ] = None,
    allow_unsigned_models: Annotated[
        bool, typer.Option("--allow-unsigned-models", help="Serve models whoever made them")
    ] = False,
    redis_url: Annotated[
        str | None,
        typer.Option(help="The online store (default redis://127.0.0.1:6379/0; a cluster: redis+cluster://host:port)"),
    ] = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    jwks: JwksOption = None,
    issuer: IssuerOption = None,
    audience: AudienceOption = None,
    api_keys: ApiKeysOption = None,
    certificate_identities: CertificateIdentitiesOption = None,
    audit_file: AuditFileOption = None,
    insecure: InsecureOption = False,
    grace: GraceOption = None,
    admin_host: Annotated[str | None, typer.Option(help="Address of the admin ports (default 127.0.0.1)")] = None,
    admin_http_port: Annotated[
        int | None, typer.Option(help="Port of /livez, /readyz, /metrics; of worker n, this + n (default none)")
    ] = None,
    admin_grpc_port: Annotated[
        int | None, typer.Option(help="Port of channelz and health; of worker n, this + n (default none)")
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Serve predictions until SIGTERM or Ctrl-C.

    Each option may come from the environment (CONDUCTOR_PORT, CONDUCTOR_REDIS_URL, CONDUCTOR_TLS_CERTIFICATE_FILE, …)
    or from conductor.toml instead. Without TLS, credentials (JWKS, API keys or client certificates) and
    trusted keys it refuses to start, unless --insecure is said.

    \b
    Examples:
      conductor serve --insecure
      conductor serve --tls-cert server.pem --tls-key server.key --jwks jwks.json --issuer https://id.example \
        --model-trusted-keys keys/model-signing.pem
      conductor serve --insecure --workers 2 --port 0 -o json
      conductor serve --insecure --admin-http-port 9464 --admin-grpc-port 9564
    """
    from pydantic import ValidationError

    from conductor_model_store import ModelStoreError
    from conductor_rpc.logs import configure_logging
    from conductor_rpc.server import run
    from conductor_rpc.settings import SettingsInvalid
    from conductor_server.process import serve_process
    from conductor_server.settings import ServerSettings
    from conductor_server.workers import WorkerFailed, serve_workers

    try:
        settings = ServerSettings.from_flags(
            host=host,
            port=port,
            workers=workers,
            model_store=model_store,
            model_trusted_keys=model_trusted_keys or None,
            model_trusted_operator_keys=model_trusted_operator_keys or None,
            model_operator_key=model_operator_key,
            model_pointer_memory=model_pointer_memory,
            allow_unsigned_models=allow_unsigned_models or None,
            redis_url=redis_url,
            tls_certificate_file=tls_cert,
            tls_key_file=tls_key,
            tls_client_ca_file=tls_client_ca,
            jwks=jwks,
            issuer=issuer,
            audience=audience,
            api_keys_file=api_keys,
            certificate_identities_file=certificate_identities,
            audit_file=audit_file,
            insecure=insecure or None,
            grace_seconds=grace,
            admin_host=admin_host,
            admin_http_port=admin_http_port,
            admin_grpc_port=admin_grpc_port,
        )
        settings.require_security()
        configure_logging(settings)
        if settings.workers == 1:
            run(serve_process(settings, lambda server: _tell(settings, server.port, output)))
        else:
            run(serve_workers(settings, lambda port: _tell(settings, port, output)))
    except (SettingsInvalid, ValidationError) as error:
        fail(str(error), USAGE)
    except (ModelStoreError, WorkerFailed) as error:
        fail(str(error), FAILED)


def _tell(settings: ServerSettings, port: int, output: OutputFormat) -> None:
    address = f"{settings.host}:{port}"
    if output is OutputFormat.JSON:
        # On one line, since this command goes on: whoever waits for it reads a line.
        typer.echo(json.dumps({"address": address, "insecure": settings.insecure, "workers": settings.workers}))
        return
    security = settings.describe_security()
    security += "; signed models" if settings.model_trusted_keys else "; models whoever made them"
    processes = "1 process" if settings.workers == 1 else f"{settings.workers} processes"
    typer.echo(f"Serving predictions on {address} ({security}; {processes}). Stop with Ctrl-C or SIGTERM.")

"""Settings, from environment variables that begin with ``FARM_``; every one is listed in docs/settings.md."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

import platformdirs
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from farm.addresses import AllowedHosts
from farm.limits import Limits
from farm.tags import read_tags


def _default_data_directory() -> Path:
    return Path(platformdirs.user_data_dir("sdxl-farm"))


class Settings(BaseSettings):
    """One process's settings. The three that make a cluster are database, broker and store."""

    # A value that is refused may be a secret, and the error ends in a log.
    model_config = SettingsConfigDict(env_prefix="FARM_", extra="ignore", frozen=True, hide_input_in_errors=True)

    data: Path = Field(
        default_factory=_default_data_directory,
        description="Directory of the embedded farm: database, broker, objects, models, logs.",
    )
    database_url: str | None = Field(
        default=None, description="PostgreSQL, as postgresql://user:password@host/name. Unset: embedded."
    )
    broker_url: str | None = Field(
        default=None, description="Redis or Valkey, as redis://host:6379/0. Unset: embedded."
    )
    message_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret by which messages in the broker are signed, the same for all producers and workers. "
        "Unset: workers believe whoever can write to the broker.",
    )
    store_url: str | None = Field(
        default=None,
        description="Object store: s3://bucket/prefix or file:///directory. Unset: a directory below FARM_DATA.",
    )
    s3_endpoint_url: str | None = Field(
        default=None, description="Address of an S3 server other than Amazon's. Credentials as boto3 reads them."
    )
    s3_public_endpoint_url: str | None = Field(
        default=None,
        description="Address under which browsers reach the S3 server; set, pictures are served by signed redirect "
        "rather than through the dashboard.",
    )
    s3_timeout_seconds: float = Field(
        default=60, gt=0, description="How long an answer of the S3 server may be silent before it is asked again."
    )
    models: Path | None = Field(
        default=None,
        description="Directory of checkpoints that the catalog names with ./. Unset: models below FARM_DATA.",
    )
    catalog: Path | None = Field(default=None, description="TOML file that extends or replaces the built-in catalog.")
    pipeline: str = Field(
        default="sdxl-1.0", description="Pipeline that submissions get which name none, and that workers load."
    )
    host: str = Field(default="127.0.0.1", description="Address that the dashboard listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port of the dashboard; 0 takes a free one.")
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Reverse proxies before the dashboard whose X-Forwarded-For, -Proto and -Host are believed.",
    )
    max_upload_mib: int = Field(
        default=256, ge=1, description="Largest request body that the dashboard accepts, in MiB."
    )
    token_requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Requests a minute of an API token without a limit of its own. Unset: no limit.",
    )
    token_images_per_day: int | None = Field(
        default=None, ge=1, description="Images that may be submitted with such a token a day (UTC). Unset: no limit."
    )
    token_concurrent_images: int | None = Field(
        default=None, ge=1, description="Unfinished images that such a token's jobs may have. Unset: no limit."
    )
    token_largest_job: int | None = Field(
        default=None, ge=1, description="Images that a job submitted with such a token may have. Unset: no limit."
    )
    allowed_hosts: str | None = Field(
        default=None,
        description="Hosts and networks, between commas, that webhooks and pictures by address may reach although they "
        "are not on the public internet: hooks.internal, 10.1.0.0/16.",
    )
    interactive_seconds: float = Field(
        default=540.0,
        gt=0,
        description="How long a request to the OpenAI- or A1111-compatible API waits for its pictures; then its job is "
        "cancelled.",
    )
    lease_seconds: float = Field(
        default=30.0, gt=0, description="How long a worker's claim on a batch lasts when it is not renewed."
    )
    heartbeat_seconds: float = Field(
        default=2.0, gt=0, description="How often a worker renews its leases and learns of cancellations."
    )
    lost_message_seconds: float = Field(
        default=5.0, gt=0, description="Age at which a queued batch that the broker does not hold is sent again."
    )
    queue_depth: int = Field(
        default=2, ge=1, description="Batches kept waiting in the broker per live worker and stage."
    )
    max_failures: int = Field(
        default=2, ge=1, description="Failed attempts after which a batch is split, or its single image given up."
    )
    max_failed_images: int = Field(
        default=100,
        ge=1,
        description="Failed images after which a job is stopped, if most of those that ended have failed: the rest "
        "fail untried.",
    )
    hang_seconds: float = Field(
        default=900.0,
        gt=0,
        description="How long a worker's device may take to come from one step to the next before it counts as hung: "
        "its process ends, and another begins.",
    )
    worker_tags: str = Field(
        default="", description="Tags of this machine's workers, which jobs can require: fast, site=lab."
    )
    worker_hours: str = Field(
        default="",
        description="When this machine's workers take work, by its clock: 20:00-07:00, several between commas. Unset: "
        "always.",
    )
    autoscale_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Time in which the devices that autoscalers are told of would do what waits.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How lines of the log are written: as text, or as JSON objects for programs."
    )
    log_level: str = Field(default="INFO", description="Least severe level that is logged.")
    metrics_public: bool = Field(
        default=False, description="Whether everybody may read /metrics; otherwise it takes a viewer's API token."
    )

    faults: Path | None = Field(
        default=None,
        description="Only for tests of the farm itself: a directory of faults that its processes shall have.",
    )

    @model_validator(mode="after")
    def _heartbeat_renews_the_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("FARM_HEARTBEAT_SECONDS must be at most half of FARM_LEASE_SECONDS")
        return self

    @property
    def token_limits(self) -> Limits:
        """The limits of tokens that have none of their own."""
        return Limits(
            self.token_requests_per_minute,
            self.token_images_per_day,
            self.token_concurrent_images,
            self.token_largest_job,
        )

    @model_validator(mode="after")
    def _tags_can_be_read(self) -> Self:
        read_tags(self.worker_tags)
        return self

    @model_validator(mode="after")
    def _allowed_hosts_can_be_read(self) -> Self:
        AllowedHosts.read(self.allowed_hosts or "")
        return self

    @property
    def reachable_hosts(self) -> AllowedHosts:
        """What may be reached although it is not on the public internet."""
        return AllowedHosts.read(self.allowed_hosts or "")

    @property
    def models_directory(self) -> Path:
        """Where the catalog's relative checkpoints are."""
        return self.models or self.data / "models"

    @property
    def effective_store_url(self) -> str:
        """The store's URL, by default the objects directory of the embedded farm."""
        return self.store_url or (self.data / "objects").absolute().as_uri()


@cache
def get_settings() -> Settings:
    """This process's settings, read once."""
    return Settings()

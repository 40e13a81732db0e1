"""Settings of API keys."""

from pydantic import BaseModel, Field, SecretStr

from nestvec.config.field_types import SecretList, UserPath
from nestvec.errors import ConfigError


class KeySettings(BaseModel):
    """Which API keys are accepted."""

    api_keys: SecretList = Field(
        default_factory=list,
        description="Keys that callers must send, comma-separated; none: open.",
    )
    api_keys_file: UserPath | None = Field(
        None, description="File with one key a line (a mounted secret), added to api_keys."
    )
    admin_keys: SecretList = Field(
        default_factory=list,
        description="Keys that may use /admin too, comma-separated; those of `nestvec keys add --admin` may as well, "
        "other keys may not.",
    )
    keys_file: UserPath | None = Field(
        None,
        description="Keys with limits, as `nestvec keys` makes them; read again when it changes (default: keys.json in "
        "data_dir, if it is there). While it cannot be read, none of its keys is let in.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Allow a non-loopback host without any key; no effect on a server that has keys, or has had a file "
        "of them.",
    )
    rates_url: SecretStr | None = Field(
        None,
        description="Redis in which several servers share the rates of keys (redis://…, rediss://…, unix://…); needs "
        "the extra `redis`.",
    )
    replicas: int = Field(
        1,
        ge=1,
        le=1024,
        description="How many servers share the keys' limits: each grants its part of what they do not count together.",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """All keys, from the lists and the file.

        Raises:
            ConfigError: The file cannot be read, or holds no key.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text("utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise ConfigError([f"api_keys_file: cannot be read ({error})"]) from error
            listed = [line.strip() for line in lines if line.strip() and line[0] != "#"]
            if not listed:  # a secret that was not mounted must not open the server
                raise ConfigError(["api_keys_file: it holds no key"])
            keys += listed
        return (*keys, *self.admin_secrets)

    @property
    def admin_secrets(self) -> tuple[str, ...]:
        """Those of the keys that may use the routes for operators."""
        return tuple(key.get_secret_value() for key in self.admin_keys)

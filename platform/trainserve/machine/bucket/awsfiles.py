"""What Amazon's own tools read from the environment, ~/.aws/credentials and ~/.aws/config, for a client that does not.

Source: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

from trainserve.errors import UserError
from trainserve.machine.home import expanded

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
# What of the environment says who we are: then no file is asked for that.
_IDENTITY = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip


def config(env: Mapping[str, str]) -> dict[str, str]:
    """Settings for obstore's S3Store beside those that it finds in the environment itself.

    Raises UserError for a profile that is named and is in no file.
    """
    found = _of_profile(env)
    if any(env.get(name) for name in _IDENTITY) and not env.get("AWS_PROFILE"):
        found = {key: value for key, value in found.items() if key in {"region", "endpoint"}}
    if region := env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"):
        found["region"] = region
    if endpoint := env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or env.get("AWS_ENDPOINT"):
        found["endpoint"] = endpoint.rstrip("/")
    return {"region": "us-east-1", **found}


def _of_profile(env: Mapping[str, str]) -> dict[str, str]:
    profile = env.get("AWS_PROFILE") or "default"
    files = {
        env.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials": profile,
        env.get("AWS_CONFIG_FILE") or "~/.aws/config": profile if profile == "default" else f"profile {profile}",
    }
    found: dict[str, str] = {}
    known = False
    for name, section in files.items():
        path: Path = expanded(name)
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
        except OSError:
            continue  # not there, or not ours to read
        except configparser.Error as error:
            raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        if parser.has_section(section):
            known = True
            found |= {ours: parser[section][theirs] for theirs, ours in _KEYS.items() if theirs in parser[section]}
    if env.get("AWS_PROFILE") and not known:
        raise UserError(
            f"AWS_PROFILE={profile}: no such profile in {' or '.join(files)}", hint="aws configure list-profiles"
        )
    return found

"""The aliases of a registered model, read as they stand: nothing is finished or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def aliases_of(client: MlflowClient, name: str) -> dict[str, str]:
    """The version of each alias. Empty where there is no model."""
    from mlflow.exceptions import MlflowException

    try:
        held = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {str(alias): str(version) for alias, version in held.items()}


def version_at(client: MlflowClient, name: str, alias: str) -> str:
    """The version an alias names, empty where it is not set."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        # Measured on 3.17.2: an alias not set is INVALID_PARAMETER_VALUE, a model that is not there the other.
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return ""
        raise

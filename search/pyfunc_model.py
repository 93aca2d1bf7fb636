"""What a registered ensemble does in MLflow: a column of photos in, their masks and shares out.

MLflow copies this file into the model and runs it there (models from code), beside a copy of trashseg.
`search` is not there: nothing of it may be imported here.
"""

from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class EnsembleModel(PythonModel):
    """`photo`: an encoded photo. `mask`: the class of each pixel, a PNG; `shares`: of each class."""

    def load_context(self, context: PythonModelContext) -> None:
        from trashseg.device import local_resources
        from trashseg.ensemble import load_ensemble

        folder = Path(context.artifacts["run"]) / "ensemble"
        self._ensemble = load_ensemble(folder, local_resources())

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A row for each photo. What is no photo is refused, by a server with status 400."""
        from trashseg.errors import DataError
        from trashseg.in_memory import answer

        try:
            answers = list(answer(self._ensemble, model_input["photo"].tolist()))
        except DataError as error:
            raise MlflowException(str(error), BAD_REQUEST) from error
        return pd.DataFrame(
            {"mask": [each.mask for each in answers], "shares": [each.shares for each in answers]},
            index=model_input.index,
        )


set_model(EnsembleModel())
